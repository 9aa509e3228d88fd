"""What a job would train, hold and cost, before anything runs."""
