#!/bin/sh
# Startup script of Amazon MWAA: runs on every scheduler, worker and web server before requirements.txt is installed, and
# must end within 5 minutes. What it exports, Airflow's processes get. It installs nothing, so nothing can fail here.

# One thread per model fit: five tasks share a small worker.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"
# No window system; and a font cache where a task may write.
export MPLBACKEND=Agg
export MPLCONFIGDIR=/tmp/matplotlib
# Each task starts an interpreter of its own: without bytecode every import takes two to three times as long.
unset PYTHONDONTWRITEBYTECODE

echo "airflow_mlops startup: ${MWAA_AIRFLOW_COMPONENT:-no component named}, OMP_NUM_THREADS=$OMP_NUM_THREADS"
