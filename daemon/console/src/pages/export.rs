//! One export of the gateway's: all that is known of it, and what may be done with it.

use super::storage::size;
use crate::facts::Facts;
use crate::page::{Page, Row, no_status, paragraph};
use crate::text::list;
use crate::volumes::VolumeRequest;

pub(crate) fn rows(facts: &Facts, name: &str) -> Vec<Row> {
    if facts.status.is_none() {
        return no_status(facts);
    }
    let Some(export) = facts.volumes.export(name) else {
        return paragraph("The gateway tells of no such export.").collect();
    };
    let kind = match &export.origin {
        Some(origin) => format!("A snapshot of {origin}: it can only be read"),
        None if export.volume => "A volume of the gateway's volume group".to_owned(),
        None => "It stands in cluster.toml, and is changed there".to_owned(),
    };
    let moved = export.moved_mib.map_or_else(String::new, |(read, written)| {
        format!("Read from it since the gateway has booted: {}, written: {}.\n", size(read), size(written))
    });
    let text = format!(
        "{kind}.\nSize: {}.\nConnected: {}.\nClaimed by: {}.\n{moved}Errors: {}.\n",
        size(export.mib),
        list(&export.clients),
        list(&export.claims),
        export.problem.as_deref().unwrap_or("none")
    );
    let mut rows: Vec<_> = paragraph(&text).collect();
    let (of, nothing) = (|| name.to_owned(), String::new);
    let mut offer = |text: &str, request| rows.push(Row::Choice(text.to_owned(), Page::Volume(request)));
    if export.volume && export.origin.is_none() {
        offer("Make it larger", VolumeRequest::Grow { export: of(), typed: nothing() });
        offer("Take a snapshot of it", VolumeRequest::Snapshot { export: of() });
    }
    if export.shared {
        let check = |repair| VolumeRequest::Check { export: of(), repair, typed: nothing() };
        offer("Check the file system", check(false));
        offer("Check and repair the file system", check(true));
        offer("Add journals", VolumeRequest::Journals { export: of(), typed: nothing() });
    }
    if export.volume {
        offer("Delete it", VolumeRequest::Delete { export: of(), typed: nothing() });
    }
    rows
}
