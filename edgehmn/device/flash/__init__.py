"""Flashing: programs that write boards, what they say checked by reading back and by running the board."""
