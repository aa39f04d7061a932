"""Between the size and length of a shot and those that models take or make."""
