"""What is done to the database beside the calls, by one server at a time."""
