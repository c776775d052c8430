"""Models that training can fit and the detector can load."""
