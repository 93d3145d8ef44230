"""Tests against emulated and real surroundings; they need root."""
