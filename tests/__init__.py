"""The tests of smsretry; they mirror src."""
