//! The console menu: pure, keys and status in, a screen and requests out.
