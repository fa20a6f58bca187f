//! Drivers for power switches and watchdogs: sans-IO dialogues carried by ports.
