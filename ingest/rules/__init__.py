"""Rules in a file: threshold, rate of change and absence, judged on the readings that the detector reads."""
