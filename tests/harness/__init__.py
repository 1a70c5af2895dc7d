"""Shared by the test programs: the `skipstone` command as a user runs it, and the networks of the zoo with weights."""
