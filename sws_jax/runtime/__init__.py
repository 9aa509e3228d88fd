"""What a process needs of its host and of the other processes."""
