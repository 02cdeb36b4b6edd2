"""Create the buckets that are named as arguments; those that exist stay as they are.

Endpoint and login come from the environment: AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""

from __future__ import annotations

import sys


def main(names: list[str]) -> int:
    """Create each bucket; 2 where none is named."""
    import boto3
    from botocore.exceptions import ClientError

    if not names:
        print("create_buckets: name one bucket or more", file=sys.stderr)  # noqa: T201
        return 2
    client = boto3.client("s3")
    there = {bucket["Name"] for bucket in client.list_buckets().get("Buckets", [])}
    for name in names:
        if name not in there:
            try:
                client.create_bucket(Bucket=name)
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise
        print(f"bucket {name}: {'was there' if name in there else 'created'}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
