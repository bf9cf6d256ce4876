"""Files that start a study elsewhere: on Slurm, on Kubernetes, on machines that ray up starts."""
