//! What one node decides: pure, no IO, no clock.
