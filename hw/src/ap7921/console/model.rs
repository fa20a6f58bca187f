//! A console to talk to: it does what the manuals say of one, and can be found in any state.

use std::fmt::Write as _;

use super::super::Relay;

pub(crate) const USER: &str = "apc";
pub(crate) const PASSWORD: &str = "secret";

/// Which firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// AOS 2.x before the command line.
    Two,
    /// AOS 3.x with `-c` refused.
    Three,
    /// AOS 3.x.
    CommandLine,
    /// AOS 6.x, the second card's.
    Second,
}

#[derive(Debug, Clone)]
pub(crate) struct Socket {
    pub(crate) name: String,
    pub(crate) relay: Relay,
    pub(crate) pending: bool,
    /// It does not switch.
    pub(crate) stuck: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    UserName,
    Password { user: String },
    CommandLine,
    Main,
    Device,
    Management,
    List,
    Outlet(usize),
    Control(usize),
    Confirm(usize, u8),
    Issued(usize),
}

/// One console.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    pub(crate) firmware: Firmware,
    pub(crate) sockets: Vec<Socket>,
    /// The user sees "Control Outlet / Configure Outlet" before the commands.
    pub(crate) admin: bool,
    at: At,
    typed: String,
}

impl Console {
    pub(crate) fn new(firmware: Firmware, names: &[&str]) -> Self {
        let socket = |name: &&str| Socket { name: (*name).to_owned(), relay: Relay::On, pending: false, stuck: false };
        let sockets = names.iter().map(socket).collect();
        Self { firmware, sockets, admin: true, at: At::UserName, typed: String::new() }
    }

    pub(crate) fn is_logged_out(&self) -> bool {
        self.at == At::UserName
    }

    /// Nobody has typed for three minutes.
    pub(crate) fn log_off(&mut self) -> String {
        self.typed.clear();
        self.go(At::UserName)
    }

    /// What comes back for what is typed: its echo, and what it brings about.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> String {
        let mut output = String::new();
        for byte in bytes {
            match byte {
                b'\r' => {
                    output.push_str("\r\n");
                    let line = core::mem::take(&mut self.typed);
                    output += &self.enter(line.trim());
                }
                0x08 => {
                    if self.typed.pop().is_some() {
                        output.push_str("\x08 \x08");
                    }
                }
                0x1b => {
                    self.typed.clear();
                    output += &self.escape();
                }
                _ => {
                    let char = char::from(*byte);
                    self.typed.push(char);
                    output.push(if matches!(self.at, At::Password { .. }) { '*' } else { char });
                }
            }
        }
        output
    }

    fn escape(&mut self) -> String {
        let up = match self.at.clone() {
            At::UserName | At::Password { .. } | At::CommandLine => return String::new(),
            At::Main | At::Device => At::Main,
            At::Management => At::Device,
            At::List if self.firmware == Firmware::Two => At::Device,
            At::List => At::Management,
            At::Outlet(_) => At::List,
            At::Control(outlet) | At::Issued(outlet) if self.admin => At::Outlet(outlet),
            At::Control(_) | At::Issued(_) => At::List,
            At::Confirm(outlet, _) => At::Control(outlet),
        };
        self.go(up)
    }

    fn enter(&mut self, line: &str) -> String {
        let next = match (self.at.clone(), line) {
            (At::UserName, "") => At::UserName,
            (At::UserName, user) => At::Password { user: user.to_owned() },
            (At::Password { user }, password) => return self.log_in(&user, password),
            (At::CommandLine, command) => return self.command(command),
            (At::Main, "1") => At::Device,
            (At::Main, "4") => At::UserName,
            (At::Device, "2") if self.firmware != Firmware::Two => At::Management,
            (At::Device, "3") if self.firmware == Firmware::Two => At::List,
            (At::Management, "1") => At::List,
            (At::List, number) => match number.parse::<usize>() {
                Ok(number) if (1..=self.sockets.len()).contains(&number) && self.admin => At::Outlet(number - 1),
                Ok(number) if (1..=self.sockets.len()).contains(&number) => At::Control(number - 1),
                _ => At::List,
            },
            (At::Outlet(outlet), "1") => At::Control(outlet),
            (At::Control(outlet), choice) => match choice.parse() {
                Ok(choice @ 1..=7) => At::Confirm(outlet, choice),
                _ => At::Control(outlet),
            },
            (At::Confirm(outlet, choice), "YES") => {
                self.act(outlet, choice);
                At::Issued(outlet)
            }
            (At::Confirm(outlet, _) | At::Issued(outlet), _) => At::Control(outlet),
            (here, _) => here,
        };
        self.go(next)
    }

    fn log_in(&mut self, user: &str, password: &str) -> String {
        let with_command_line = format!("{PASSWORD} -c");
        let place = match password {
            _ if user != USER => At::UserName,
            PASSWORD if self.firmware == Firmware::Second => At::CommandLine,
            PASSWORD => At::Main,
            _ if password == with_command_line && self.firmware == Firmware::CommandLine => At::CommandLine,
            _ => At::UserName,
        };
        let unit = format!("Unit ID: pdu1\r\nOutlets: {}\r\n", self.sockets.len());
        let greeting = match self.firmware {
            _ if place != At::CommandLine => String::new(),
            Firmware::Second => {
                "Up Time   : 0 Days  Stat : P+ N4+ N6+ A+\r\n\r\nType ? for command listing\r\n".to_owned()
            }
            Firmware::Two | Firmware::Three | Firmware::CommandLine => unit,
        };
        greeting + &self.go(place)
    }

    /// The second card's.
    fn second(&mut self, command: &str) -> String {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let outlet = rest.parse::<usize>().ok().filter(|number| (1..=self.sockets.len()).contains(number));
        let mut output = "E000: Success\r\n".to_owned();
        match (word, outlet, rest) {
            ("", ..) => output.clear(),
            ("exit", ..) => return self.go(At::UserName),
            ("olStatus", None, "all") => {
                for (socket, number) in self.sockets.iter().zip(1..) {
                    let state = if socket.relay == Relay::On { "On" } else { "Off" };
                    let star = if socket.pending { "*" } else { "" };
                    let _ = write!(output, " {number}: {}: {state}{star}\r\n", socket.name);
                }
            }
            ("olOn", Some(number), _) => self.act(number - 1, 1),
            ("olOff", Some(number), _) => self.act(number - 1, 2),
            ("olCancelCmd", Some(number), _) => self.act(number - 1, 7),
            ("olOn" | "olOff" | "olCancelCmd" | "olStatus", ..) => output = "E102: Parameter Error\r\n".to_owned(),
            _ => output = "E101: Command Not Found\r\n".to_owned(),
        }
        output + &self.go(At::CommandLine)
    }

    fn command(&mut self, command: &str) -> String {
        if self.firmware == Firmware::Second {
            return self.second(command);
        }
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let outlet = rest.parse::<usize>().ok().filter(|number| (1..=self.sockets.len()).contains(number));
        let mut output = String::new();
        match (word, outlet) {
            ("", _) => {}
            ("exit", _) => return self.go(At::UserName),
            ("status", None) => {
                output += "OK\r\n";
                for (socket, number) in self.sockets.iter().zip(1..) {
                    let star = if socket.pending { "*" } else { "" };
                    let state = format!("{}{star}", socket.relay.to_string().to_ascii_uppercase());
                    let _ = write!(output, " {number}: {state:<6}: {}\r\n", socket.name);
                }
            }
            ("on" | "off", Some(number)) => {
                self.act(number - 1, if word == "on" { 1 } else { 2 });
                let name = &self.sockets[number - 1].name;
                let _ = write!(output, "OK\r\n {number}: {name:<15}: Outlet Turned {word}\r\n");
            }
            ("on" | "off" | "status", _) => output += "E101\r\n",
            _ => output += "E100\r\n",
        }
        output + &self.go(At::CommandLine)
    }

    fn act(&mut self, outlet: usize, choice: u8) {
        let socket = &mut self.sockets[outlet];
        socket.pending = false;
        match choice {
            _ if socket.stuck => {}
            1 => socket.relay = Relay::On,
            2 => socket.relay = Relay::Off,
            3..=6 => socket.pending = true,
            _ => {}
        }
    }

    fn go(&mut self, place: At) -> String {
        self.at = place;
        let menu = |title: &str, choices: &str| {
            let keys = "     <ESC>- Back, <ENTER>- Refresh, <CTRL-L>- Event Log\r\n";
            format!("\r\n------- {title} ------------------------------\r\n\r\n{choices}\r\n{keys}\r\n> ")
        };
        match &self.at {
            At::UserName => "\r\nUser Name : ".to_owned(),
            At::Password { .. } => "Password  : ".to_owned(),
            At::CommandLine if self.firmware == Firmware::Second => "\r\napc>".to_owned(),
            At::CommandLine => "\r\nAPC> ".to_owned(),
            At::Main => {
                let head = "American Power Conversion               Network Management Card AOS      v3.9.2\r\n\
                            Location  : Unknown                          User : Administrator\r\n\
                            Up Time   : 3 Days 4 Hours                   Stat : P+ N? A+\r\n\r\n\
                            Switched Rack PDU: Communication Established\r\n";
                let choices = "     1- Device Manager\r\n     2- Network\r\n     3- System\r\n     4- Logout\r\n";
                head.to_owned() + &menu("Control Console", choices)
            }
            At::Device if self.firmware == Firmware::Two => menu(
                "Device Manager",
                "     1- Load\r\n     2- Power Supply\r\n     3- Outlet Control/Configuration\r\n",
            ),
            At::Device => menu("Device Manager", "     1- Phase Management            2- Outlet Management\r\n"),
            At::Management => {
                menu("Outlet Management", "     1- Outlet Control/Configuration\r\n     2- Outlet Restriction\r\n")
            }
            At::List => {
                let row = |(socket, number): (&Socket, i32)| {
                    let star = if socket.pending { "*" } else { "" };
                    let state = socket.relay.to_string().to_ascii_uppercase();
                    format!("     {number}- {:<24} {state}{star}\r\n", socket.name)
                };
                let rows: String = self.sockets.iter().zip(1..).map(row).collect();
                menu("Outlet Control/Configuration", &(rows + "     9- Master Control/Configuration\r\n"))
            }
            At::Outlet(outlet) => {
                let socket = &self.sockets[*outlet];
                let head =
                    format!("        Name         : {}\r\n        State        : {}\r\n", socket.name, socket.relay);
                menu(&socket.name, &(head + "     1- Control Outlet\r\n     2- Configure Outlet\r\n"))
            }
            At::Control(_) => {
                let choices = "     1- Immediate On\r\n     2- Immediate Off\r\n     3- Immediate Reboot\r\n     \
                               4- Delayed On\r\n     5- Delayed Off\r\n     6- Delayed Reboot\r\n     7- Cancel\r\n";
                menu("Control Outlet", choices)
            }
            At::Confirm(outlet, _) => {
                let name = &self.sockets[*outlet].name;
                let what = format!("This command will act on outlet {} named '{name}'.", outlet + 1);
                format!("        {what}\r\n        Enter 'YES' to continue or <ENTER> to cancel : ")
            }
            At::Issued(_) => "        Command successfully issued.\r\n        Press <ENTER> to continue...".to_owned(),
        }
    }
}
