//! About: which program this is, and its keys.

use crate::facts::Facts;

pub(super) fn lines(_: &Facts) -> Vec<String> {
    let text = concat!(
        "Holdfast ",
        env!("CARGO_PKG_VERSION"),
        "\n\n",
        "Turns machines into a highly available Xen cluster. Licensed under MIT or\n",
        "Apache-2.0, as you like.\n\n",
        "This menu is the only way in: there is no shell and no remote login.\n",
        "VMs are ordinary xl files in /shared/vms; nodes, networks and power switches\n",
        "are described in cluster.toml, which is part of the image.\n\n",
        "1 to 5, or arrows and Enter   choose an entry\n",
        "Esc, q                        back to the menu\n",
        "arrows, Page Up, Page Down,\n",
        "Home, End                     look through a long page\n",
        "Ctrl-L                        draw the screen again",
    );
    text.split('\n').map(str::to_owned).collect()
}
