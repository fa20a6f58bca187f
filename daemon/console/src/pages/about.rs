//! About: which program this is, its keys, and the way to the support bundle.

use crate::page::{Page, Row, paragraph};

pub(crate) fn rows() -> Vec<Row> {
    let text = concat!(
        "Holdfast ",
        env!("CARGO_PKG_VERSION"),
        "\n\n",
        "Turns machines into a highly available Xen cluster. Licensed under MIT or\n",
        "Apache-2.0, as you like.\n\n",
        "This menu is the only way in: there is no shell and no remote login.\n",
        "VMs are ordinary xl files in /shared/vms; nodes, networks and power switches\n",
        "are described in cluster.toml, which is part of the image.\n\n",
        "a number, or arrows and Enter   choose a line\n",
        "Esc, q                          back to where you came from\n",
        "arrows, Page Up, Page Down,\n",
        "Home, End                       look through a long page\n",
        "/                               in the log: show lines with a text only\n",
        "Ctrl-L                          draw the screen again",
    );
    let bundle = Row::Choice("Support bundle: write what is known here to a USB stick".to_owned(), Page::Support);
    paragraph(text).chain([Row::Text(String::new()), bundle]).collect()
}
