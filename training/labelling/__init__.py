"""What people are asked, what they said, and what is worth asking."""
