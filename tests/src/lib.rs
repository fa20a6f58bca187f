//! The virtual rack, the deterministic simulator, and the checks.
