"""What a person writes: strict models of one model's specification and its data contract."""
