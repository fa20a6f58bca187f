//! The kernel modules of the image, loaded in the order in which its builder has listed them.

use std::ffi::CString;
use std::fs::{self, File};

use super::failed;
use super::mounts::all;

/// The list: one absolute path a line, in load order, with the module's parameters behind it.
const LIST: &str = "/etc/modules";

/// One line of the list.
#[derive(Debug, PartialEq, Eq)]
struct Module<'a> {
    path: &'a str,
    parameters: &'a str,
}

/// Loads them.
///
/// # Errors
/// Every module that the kernel refused; the others are loaded nevertheless.
pub(super) fn load() -> Result<(), String> {
    let list = fs::read_to_string(LIST).map_err(failed(LIST))?;
    all(parse(&list).map(|module| load_one(&module)))
}

/// The modules that `list` names. Empty lines and lines that begin with `#` name none.
fn parse(list: &str) -> impl Iterator<Item = Module<'_>> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (path, parameters) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        Module { path, parameters: parameters.trim() }
    })
}

fn load_one(module: &Module<'_>) -> Result<(), String> {
    let file = File::open(module.path).map_err(failed(module.path))?;
    let parameters = CString::new(module.parameters).map_err(|error| format!("{}: {error}", module.path))?;
    match rustix::system::finit_module(&file, &parameters, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(format!("{}: {error}", module.path)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Module, parse};

    #[test]
    fn a_line_is_a_path_and_its_parameters() {
        let list = "# storage\n\n/lib/modules/a.ko\n  /lib/modules/nbd.ko \t nbds_max=16 max_part=0 \n";
        let expected = [
            Module { path: "/lib/modules/a.ko", parameters: "" },
            Module { path: "/lib/modules/nbd.ko", parameters: "nbds_max=16 max_part=0" },
        ];
        assert_eq!(parse(list).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_empty_list_loads_nothing() {
        assert_eq!(parse("\n#\n").count(), 0);
    }
}
