//! The console menu: pure, keys and news in, a screen and requests out.
//!
//! ```text
//!  terminal ---bytes--> Keys --Key--> +------+ --Ask-----------> supervisor
//!                                     | Menu |
//!  supervisor --------------Input---> +------+ --Screen--> render --bytes--> terminal
//! ```
//!
//! Whoever carries the bytes decides nothing: that is the applet `menu` of `holdfast`. One file a page in `pages`;
//! what every screen looks like is written down in `cases/*.txt`.
#![forbid(unsafe_code)]

mod bundle;
mod draw;
mod facts;
mod guest;
mod joining;
mod keys;
mod lock;
mod menu;
mod page;
mod pages;
mod progress;
mod render;
mod screen;
mod text;
mod volumes;

pub use bundle::{BundleAnswer, BundleRequest, Stick, Written};
pub use facts::{Line, OutletRead};
pub use guest::{FromGuest, LEAVE};
pub use joining::{Asking, JoinAnswer, JoinRequest, Joining, Machine, Window};
pub use keys::{Key, Keys};
pub use lock::{Lock, PIN_CHARACTERS, Pin};
pub use menu::{Ask, Input, Menu};
pub use pages::size;
pub use progress::{Leaving, Move, Progress};
pub use render::{RESTORE, render};
pub use screen::{COLUMNS, Cell, ROWS, Screen, Style};
pub use volumes::{Disk, Exported, Group, VolumeAnswer, VolumeRequest, Volumes};
