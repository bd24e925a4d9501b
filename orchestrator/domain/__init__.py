"""The rules of a staged release, pure: no clock, no network, no SQL, no Temporal. Time is an argument."""
