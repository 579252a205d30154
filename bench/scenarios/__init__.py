"""What is measured and is no plain workload: each module gives one step of a round."""
