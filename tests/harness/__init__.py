"""What the test programs share: the `skipstone` command as a user runs it, and the networks of the zoo with weights."""
