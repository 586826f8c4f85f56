"""What the tests of every tier share."""
