//! What the menus ask about the gateway's disks, carried to the gateway and back. On the gateway too it goes over the stream:
//! the process that answers there is another one.

use super::mailbox::{Post, Told};
use super::menu_link::MenuId;
use super::run::servant;
use crate::stream::{Opaque, Service};
use crate::streams::Member;

/// Asks the gateway; the answer comes by `post`, when it is done.
pub(super) fn ask(menu: MenuId, request: Opaque, post: Post) {
    let (to, later) = (request.clone(), post.clone());
    let asked = servant("volumes", move || {
        let outcome = at_gateway(&request);
        later.tell(Told::Volumes { menu, to: request, outcome });
    });
    if let Err(error) = asked {
        post.tell(Told::Volumes { menu, to, outcome: Err(error) });
    }
}

fn at_gateway(request: &Opaque) -> Result<Opaque, String> {
    let member = Member::read()?;
    let (_, gateway) = member.site.config.gateway().ok_or("there is no gateway to ask")?;
    let service = Service::Volume(request.clone());
    let stream = member.connect(gateway.address, &service);
    let said = stream.and_then(|mut stream| stream.hear::<Result<Opaque, String>>());
    said.map_err(|error| error.to_string())?
}
