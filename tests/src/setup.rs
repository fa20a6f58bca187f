//! Installing what is missing.
