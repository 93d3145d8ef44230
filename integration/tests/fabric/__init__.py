"""Tests of the fabric emulator itself: that it behaves as Azure does."""
