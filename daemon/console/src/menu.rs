//! Which page is open, and what a key does there.
//!
//! The pages that are open lie on each other: a choice opens one more, Esc closes the uppermost. On a page with choices a
//! mark stands on one of them; their numbers choose them too. Only a question asks for something, and only when confirmed.

use cluster::event::{Answer, Request};
use cluster::status::Status;
use cluster::words::VmName;

use crate::bundle::{BundleAnswer, BundleRequest};
use crate::draw;
use crate::facts::{Facts, Line, OutletRead, Reply};
use crate::guest::{FromGuest, Guest};
use crate::joining::{JoinAnswer, JoinRequest};
use crate::keys::Key;
use crate::lock::{Lock, PIN_CHARACTERS, Pin};
use crate::page::{Page, Row};
use crate::progress::Progress;
use crate::screen::Screen;
use crate::volumes::{VolumeAnswer, VolumeRequest};

/// Characters that can be typed.
const TYPED: usize = PIN_CHARACTERS;

/// What the menu is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// When a key was pressed.
    Key(Key),
    /// When keys were pressed that went to a guest.
    Typed,
    /// When something is to be told of the console that this menu has asked for.
    Guest(FromGuest),
    /// When the supervisor answers: it will tell everything from the beginning.
    Connected,
    /// When the supervisor does not answer any more.
    Lost,
    /// When the supervisor tells how things are.
    Status(Box<Status>),
    /// When the supervisor tells how far moves and nodes that leave are, in place of what it told before.
    Progress(Progress),
    /// When there are further lines of the event log, oldest first.
    Log(Vec<Line>),
    /// When this node has read outlets, which replaces what it had read of them.
    Outlets(Vec<OutletRead>),
    /// When something is wrong with this machine or its configuration: what it is, and what to do.
    Problem(String),
    /// When the supervisor answers what this menu has asked.
    Answer(Answer),
    /// When the gateway answers what this menu has asked about machines that join.
    Joining(JoinAnswer),
    /// When the gateway answers what this menu has asked about its disks.
    Volumes(VolumeAnswer),
    /// When the supervisor answers what this menu has asked about support bundles.
    Bundle(BundleAnswer),
    /// When this machine joins: how that stands, in place of what was said before.
    Joins(String),
    /// When this machine has a PIN: how this menu's lock stands, in place of what was said before.
    Lock(Lock),
}

/// What is to be asked of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Something of the cluster.
    Cluster(Request),
    /// Something of the gateway, about machines that join.
    Join(JoinRequest),
    /// To let this menu ask for things: this PIN was typed.
    Unlock(Pin),
    /// Not to let it any more, until the PIN is typed again.
    Lock,
    /// Nothing, but that somebody is there: a key was pressed in a menu that was unlocked.
    Active,
    /// Something of the gateway, about its disks.
    Volume(VolumeRequest),
    /// Something of the supervisor, about support bundles.
    Bundle(BundleRequest),
    /// To be attached to the console of this VM, until [`Menu::has_guest`] says otherwise.
    Console(VmName),
}

/// The menu of one terminal.
#[derive(Debug)]
pub struct Menu {
    facts: Facts,
    /// The pages below the open one.
    below: Vec<Open>,
    open: Open,
}

/// A page that is open.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) page: Page,
    /// The first row that is wanted on the screen; the end, if there are not so many.
    pub(crate) top: usize,
    /// The choice that is marked, from 0; the last one, if there are not so many.
    pub(crate) marked: usize,
    /// The digits so far of a choice's number.
    number: usize,
    /// Whether the keys are a text's.
    pub(crate) typing: bool,
}

impl Open {
    fn at(page: Page) -> Self {
        let typing = page.asks() && page.types();
        Self { top: if page.follows() { usize::MAX } else { 0 }, page, marked: 0, number: 0, typing }
    }

    /// Shows from that row on; a page that follows what is new goes on doing so from its end.
    fn scroll(&mut self, top: usize, last: usize) {
        self.top = if self.page.follows() && top >= last { usize::MAX } else { top.min(last) };
    }
}

impl Default for Menu {
    fn default() -> Self {
        Self { facts: Facts::default(), below: Vec::new(), open: Open::at(Page::First) }
    }
}

impl Menu {
    /// A menu that was told nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what has happened; gives what is to be asked of the supervisor.
    pub fn handle(&mut self, input: Input) -> Option<Ask> {
        let here = matches!(input, Input::Key(_) | Input::Typed) && self.facts.is_unlocked();
        // How machines that join and the gateway's disks stand is asked for when somebody begins to look, and with every status
        // while he does.
        let (looked, stored, bundled) = (self.open.page.joins(), self.open.page.stores(), self.open.page.bundles());
        // A machine that is in no cluster has no status: there a key looks again.
        let redrawn = matches!(input, Input::Key(Key::Redraw) | Input::Connected);
        let told = matches!(input, Input::Status(_));
        let asked = self.take(input);
        if !matches!(self.open.page, Page::Console(_)) {
            self.facts.guest = None;
        }
        if asked.is_none()
            && self.facts.connected
            && let Some(vm) = self.facts.guest.as_mut().and_then(Guest::ask)
        {
            return Some(Ask::Console(vm));
        }
        let looks = self.open.page.joins() && (told || !looked);
        if asked.is_none() && looks && self.facts.connected && !self.facts.listing {
            self.facts.listing = true;
            return Some(Ask::Join(JoinRequest::List));
        }
        let looks = self.open.page.stores() && (told || !stored);
        if asked.is_none() && looks && self.facts.connected && !self.facts.volumes.listing {
            self.facts.volumes.listing = true;
            return Some(Ask::Volume(VolumeRequest::List));
        }
        let looks = self.open.page.bundles() && (told || redrawn || !bundled);
        if asked.is_none()
            && looks
            && self.facts.connected
            && !self.facts.bundling.looking
            && !self.facts.bundling.awaits()
        {
            self.facts.bundling.ask(&BundleRequest::Look);
            return Some(Ask::Bundle(BundleRequest::Look));
        }
        asked.or(here.then_some(Ask::Active))
    }

    fn take(&mut self, input: Input) -> Option<Ask> {
        match input {
            Input::Key(key) => return self.press(key),
            Input::Typed => {}
            Input::Guest(told) => {
                if let Some(guest) = &mut self.facts.guest {
                    guest.told(told);
                }
            }
            Input::Connected => self.facts.begin(),
            Input::Lost => {
                self.facts.lose();
                self.turn();
            }
            Input::Status(status) => self.facts.stand(*status),
            Input::Progress(progress) => self.facts.progress = progress,
            Input::Log(lines) => self.facts.add_log(lines),
            Input::Outlets(read) => self.facts.read(read),
            Input::Problem(text) => self.facts.problems.push(text),
            Input::Answer(answer) => self.facts.answer(answer),
            Input::Joining(answer) => self.facts.joined(answer),
            Input::Volumes(answer) => self.facts.volumes.answered(answer),
            Input::Bundle(answer) => self.facts.bundling.answered(answer),
            Input::Joins(text) => self.facts.joins = Some(text),
            Input::Lock(lock) => {
                self.facts.lock = Some(lock);
                self.facts.unlocks = false;
                self.turn();
            }
        }
        None
    }

    /// What is to be seen now.
    #[must_use]
    pub fn screen(&self) -> Screen {
        draw::screen(&self.facts, &self.open)
    }

    /// Whether the console that was asked for last is wanted still.
    #[must_use]
    pub fn has_guest(&self) -> bool {
        self.facts.guest.as_ref().is_some_and(Guest::is_open)
    }

    /// Whether all keys but [`LEAVE`](crate::LEAVE) are a guest's.
    #[must_use]
    pub fn types_to_guest(&self) -> bool {
        self.facts.guest.as_ref().is_some_and(Guest::is_attached)
    }

    /// Shows what the lock allows: nothing but where the PIN is typed, or the menu from its first page on.
    fn turn(&mut self) {
        let shown = matches!(self.open.page, Page::Locked(_));
        if self.facts.is_locked() != shown {
            self.below.clear();
            self.open = Open::at(if shown { Page::First } else { Page::Locked(Pin::new()) });
        }
    }

    fn press(&mut self, key: Key) -> Option<Ask> {
        let number = core::mem::take(&mut self.open.number);
        let open = self.open.page.is_open(&self.facts);
        if self.open.typing && (open || matches!(self.open.page, Page::Log(_))) && self.type_in(key) {
            return None;
        }
        if open && let Some(ask) = confirmed(key, &self.open.page) {
            self.open.page.text().into_iter().for_each(String::clear);
            match &ask {
                Ask::Cluster(request) => self.facts.ask(request.clone()),
                Ask::Join(request) => self.facts.join_asked = Some((request.clone(), Reply::Awaited)),
                Ask::Unlock(_) => self.facts.unlocks = true,
                Ask::Lock | Ask::Active | Ask::Console(_) => {}
                Ask::Volume(request) => self.facts.volumes.ask(request),
                Ask::Bundle(request) => self.facts.bundling.ask(request),
            }
            return Some(ask);
        }
        match key {
            Key::Back | Key::Erase | Key::Left | Key::Char('q') => self.close(),
            Key::Char('n' | 'N') if self.open.page.asks() => self.close(),
            Key::Char('/') if matches!(self.open.page, Page::Log(_)) => self.open.typing = true,
            Key::Char('l') if self.open.page == Page::First && self.facts.is_unlocked() => return Some(Ask::Lock),
            Key::Char(digit) => self.choose_number(number, digit),
            Key::Enter if self.facts.guest.is_some() => self.facts.guest.iter_mut().for_each(Guest::again),
            Key::Enter | Key::Right => self.choose(),
            Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home | Key::End => self.go(key),
            Key::Redraw => {}
        }
        None
    }

    /// Types a text; whether the key was one of it.
    fn type_in(&mut self, key: Key) -> bool {
        let (asks, locked) = (self.open.page.asks(), matches!(self.open.page, Page::Locked(_)));
        if locked && matches!(key, Key::Char(_) | Key::Erase) {
            // Where the PIN stands is seen while it is typed.
            self.open.top = 0;
        }
        let Some(text) = self.open.page.text() else { return false };
        match key {
            Key::Char(character) if text.chars().count() < TYPED => text.push(character),
            Key::Char(_) => {}
            Key::Erase => drop(text.pop()),
            Key::Back if locked => text.clear(),
            // In a question it is confirmed, or closed.
            Key::Enter | Key::Back if asks => return false,
            Key::Up | Key::Down if locked => return false,
            Key::Enter => self.open.typing = false,
            Key::Back => {
                text.clear();
                self.open.typing = false;
            }
            Key::Up | Key::Down | Key::Left | Key::Right => return asks,
            Key::PageUp | Key::PageDown | Key::Home | Key::End | Key::Redraw => return false,
        }
        true
    }

    /// Opens the page behind a choice.
    fn enter(&mut self, page: Page) {
        match &page {
            Page::Ask(request) => self.facts.forget(request),
            Page::Join(_) if !self.facts.awaits_gateway() => self.facts.join_asked = None,
            Page::Volume(_) => self.facts.volumes.forget(),
            Page::Bundle(_) => self.facts.bundling.forget(),
            Page::Console(vm) => self.facts.guest = Some(Guest::new(vm.clone())),
            Page::First
            | Page::Overview
            | Page::Vms
            | Page::Vm(_)
            | Page::Targets(_)
            | Page::Nodes
            | Page::Node(_)
            | Page::Fencing
            | Page::Log(_)
            | Page::Joining
            | Page::Storage
            | Page::Export(_)
            | Page::About
            | Page::Support
            | Page::Join(_)
            | Page::Locked(_) => {}
        }
        self.below.push(core::mem::replace(&mut self.open, Open::at(page)));
    }

    /// Closes the open page; the first one stays.
    fn close(&mut self) {
        if let Some(below) = self.below.pop() {
            self.open = below;
        }
    }

    /// The choices of the open page: in which row each is, and where it leads.
    fn choices(&self) -> Vec<(usize, Page)> {
        let rows = self.open.page.rows(&self.facts).into_iter().enumerate();
        rows.filter_map(|(row, text)| match text {
            Row::Choice(_, page) => Some((row, page)),
            Row::Text(_) => None,
        })
        .collect()
    }

    /// Opens what is marked.
    fn choose(&mut self) {
        let mut choices = self.choices();
        if !choices.is_empty() {
            let marked = self.open.marked.min(choices.len() - 1);
            self.enter(choices.swap_remove(marked).1);
        }
    }

    /// One more digit of a choice's number: it is opened as soon as no longer number begins like that.
    fn choose_number(&mut self, before: usize, digit: char) {
        let Some(digit) = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()) else { return };
        let choices = self.choices();
        let longer = before * 10 + digit;
        let number = if (1..=choices.len()).contains(&longer) { longer } else { digit };
        let Some(row) = number.checked_sub(1).and_then(|marked| choices.get(marked)).map(|(row, _)| *row) else {
            return;
        };
        self.open.marked = number - 1;
        self.show(row);
        if number * 10 > choices.len() {
            self.choose();
        } else {
            self.open.number = number;
        }
    }

    /// Moves the mark where there is a choice in that direction, and the page where there is none.
    fn go(&mut self, key: Key) {
        let rows = self.open.page.rows(&self.facts).len();
        let last = rows.saturating_sub(draw::PAGE);
        let top = self.open.top.min(last);
        let choices = self.choices();
        let marked = self.open.marked.min(choices.len().saturating_sub(1));
        let (wanted, to) = match key {
            Key::Up => (marked.checked_sub(1), top.saturating_sub(1)),
            Key::Down => (Some(marked + 1), top + 1),
            Key::PageUp => (None, top.saturating_sub(draw::PAGE - 1)),
            Key::PageDown => (None, top + (draw::PAGE - 1)),
            Key::Home => (Some(0), 0),
            Key::End => (choices.len().checked_sub(1), last),
            Key::Char(_) | Key::Enter | Key::Back | Key::Erase | Key::Left | Key::Right | Key::Redraw => return,
        };
        match wanted.and_then(|wanted| Some((wanted, choices.get(wanted)?.0))) {
            Some((wanted, row)) => {
                self.open.marked = wanted;
                if matches!(key, Key::Home | Key::End) {
                    self.open.top = to;
                }
                self.show(row);
            }
            None => {
                self.open.scroll(to, last);
                // The mark comes along as far as it must.
                let top = self.open.top.min(last);
                let seen = |(row, _): &(usize, Page)| (top..top + draw::PAGE).contains(row);
                let seen: Vec<usize> = (0..).zip(&choices).filter(|(_, choice)| seen(choice)).map(|(n, _)| n).collect();
                if let (Some(first), Some(last)) = (seen.first(), seen.last()) {
                    self.open.marked = marked.clamp(*first, *last);
                }
            }
        }
    }

    /// Scrolls so far that a row is seen; above the first choice, so far that what stands there is seen too.
    fn show(&mut self, row: usize) {
        let first = self.open.marked == 0 && row < draw::PAGE;
        let top = if first { 0 } else { self.open.top.min(row) };
        self.open.top = top.max((row + 1).saturating_sub(draw::PAGE));
    }
}

/// What a key asks for on a page, if it confirms a question.
fn confirmed(key: Key, page: &Page) -> Option<Ask> {
    let yes = matches!(key, Key::Char('y' | 'Y'));
    match page {
        Page::Ask(request) => confirms(key, request).then(|| Ask::Cluster(request.clone())),
        Page::Join(request @ (JoinRequest::Approve { code: typed, .. } | JoinRequest::Open { machines: typed })) => {
            (key == Key::Enter && !typed.is_empty()).then(|| Ask::Join(request.clone()))
        }
        Page::Join(request) => yes.then(|| Ask::Join(request.clone())),
        Page::Bundle(stick) => yes.then(|| Ask::Bundle(BundleRequest::Write { stick: stick.clone() })),
        Page::Locked(pin) => (key == Key::Enter && !pin.text().is_empty()).then(|| Ask::Unlock(pin.clone())),
        Page::Volume(request) => {
            let typed = request.clone().typed().map(|typed| key == Key::Enter && !typed.is_empty());
            typed.unwrap_or(yes).then(|| Ask::Volume(request.clone()))
        }
        Page::First
        | Page::Overview
        | Page::Vms
        | Page::Vm(_)
        | Page::Console(_)
        | Page::Targets(_)
        | Page::Nodes
        | Page::Node(_)
        | Page::Fencing
        | Page::Log(_)
        | Page::Joining
        | Page::Storage
        | Page::Export(_)
        | Page::About
        | Page::Support => None,
    }
}

/// Whether a key confirms a request.
fn confirms(key: Key, request: &Request) -> bool {
    match request {
        Request::ConfirmOff { typed, .. } | Request::RemoveNode { typed, .. } => key == Key::Enter && !typed.is_empty(),
        Request::ShutDown
        | Request::Standby { .. }
        | Request::Maintenance { .. }
        | Request::Disarm { .. }
        | Request::Start { .. }
        | Request::Stop { .. }
        | Request::Migrate { .. }
        | Request::ChangeKey { .. }
        | Request::Drill { .. }
        | Request::AddNode { .. }
        | Request::Rolling { .. } => matches!(key, Key::Char('y' | 'Y')),
    }
}
