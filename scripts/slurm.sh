#!/usr/bin/env bash
# A job that ends by its time limit goes back into the queue and continues from its records.
#   sbatch scripts/slurm.sh --config configs/cifar_fixed.yaml --config configs/hardware/slurm.yaml
#SBATCH --job-name=lit_purify
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -u
srun --kill-on-bad-exit=1 .venv/bin/python -m lit_purify test "$@"
status=$?
if [ "$status" -eq 143 ]; then # ended by SIGTERM: what was done is recorded
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
