"""The database's schema: its migrations, how they run, and the lock under which it is changed."""
