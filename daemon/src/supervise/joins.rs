//! What the menus ask about machines that join, carried to the gateway and back. On the gateway too it goes over the stream:
//! the process that answers there is another one.

use console::{JoinAnswer, JoinRequest, Joining};

use super::mailbox::{Post, Told};
use super::menu_link::MenuId;
use super::run::servant;
use crate::stream::Service;
use crate::streams::Member;

/// Asks the gateway; the answer comes by `post`.
pub(super) fn ask(menu: MenuId, request: JoinRequest, post: Post) {
    let (to, later) = (request.clone(), post.clone());
    let asked = servant("joins", move || {
        let outcome = at_gateway(&request);
        later.tell(Told::Joining { menu, answer: JoinAnswer { to: request, outcome } });
    });
    if let Err(error) = asked {
        post.tell(Told::Joining { menu, answer: JoinAnswer { to, outcome: Err(error) } });
    }
}

fn at_gateway(request: &JoinRequest) -> Result<Joining, String> {
    let member = Member::read()?;
    let (_, gateway) = member.site.config.gateway().ok_or("there is no gateway to ask")?;
    let service = Service::Join(request.clone());
    let stream = member.connect(gateway.address, &service);
    let said = stream.and_then(|mut stream| stream.hear());
    said.map_err(|error| error.to_string())
}
