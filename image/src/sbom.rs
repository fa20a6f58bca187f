//! What the image is made of: its software bill of materials, in the form of SPDX 2.3 (spdx.github.io/spdx-spec/v2.3).
//!
//! Of each Debian package it says the version, the archive's hash and the text of its licences, and of each crate that is linked
//! into our binary the version, the hash of `Cargo.lock` and its licences. What the rack's guests run is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::build::{Places, TARGET};
use crate::debian::{Packages, output};

/// The file, beside what it describes.
pub const FILE: &str = "holdfast.spdx.json";

/// How a component may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Licence {
    /// As SPDX writes it.
    Expression(String),
    /// In its own words.
    Text(String),
}

/// One thing that the image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Where it comes from, in the words of a package URL: `deb/debian`, `cargo`, `generic`.
    pub origin: &'static str,
    /// Its name there.
    pub name: String,
    /// Its version; empty if nobody says it.
    pub version: String,
    /// SHA-256 of the archive that it came in.
    pub sha256: Option<String>,
    /// How it may be used.
    pub licence: Licence,
}

impl Component {
    /// Its name in the document.
    fn id(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let origin = self.origin.split('/').next().unwrap_or_default();
        format!("{origin}-{}-{}", self.name, self.version).chars().map(plain).collect()
    }

    /// As a package of the document.
    fn package(&self) -> Value {
        let licence = match &self.licence {
            Licence::Expression(expression) => expression.clone(),
            Licence::Text(_) => format!("LicenseRef-{}", self.id()),
        };
        let version = self.version.replace('+', "%2B").replace(':', "%3A");
        let url = format!("pkg:{}/{}@{version}", self.origin, self.name);
        let mut package = json!({
            "SPDXID": format!("SPDXRef-{}", self.id()),
            "name": self.name,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": licence,
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": url.trim_end_matches('@'),
            }],
        });
        let more = [
            ("versionInfo", (!self.version.is_empty()).then(|| json!(self.version))),
            ("checksums", self.sha256.as_ref().map(|hash| json!([{"algorithm": "SHA256", "checksumValue": hash}]))),
        ];
        if let Some(object) = package.as_object_mut() {
            object.extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        }
        package
    }
}

/// The document of an image with that version, made of `components`, whose own hash is `hash`. The same image has the same document: it
/// was created, as everything in the image, when time began.
#[must_use]
pub fn document(version: &str, hash: &str, components: &[Component]) -> Value {
    let image = json!({
        "SPDXID": "SPDXRef-image",
        "name": "holdfast-image",
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "MIT OR Apache-2.0",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    });
    let relation = |from: &str, how: &str, to: String| {
        json!({
            "spdxElementId": from, "relationshipType": how, "relatedSpdxElement": to,
        })
    };
    let contains =
        components.iter().map(|part| relation("SPDXRef-image", "CONTAINS", format!("SPDXRef-{}", part.id())));
    let describes = relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image".to_owned());
    let texts = components.iter().filter_map(|part| match &part.licence {
        Licence::Text(text) => Some(json!({
            "licenseId": format!("LicenseRef-{}", part.id()), "name": part.name, "extractedText": text,
        })),
        Licence::Expression(_) => None,
    });
    let packages: Vec<Value> = std::iter::once(image).chain(components.iter().map(Component::package)).collect();
    let relationships: Vec<Value> = std::iter::once(describes).chain(contains).collect();
    let texts: Vec<Value> = texts.collect();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("holdfast-image-{version}"),
        "documentNamespace": format!("https://spdx.org/spdxdocs/holdfast-image-{version}-{hash}"),
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": ["Tool: holdfast-cargo-image"]},
        "packages": packages,
        "relationships": relationships,
        "hasExtractedLicensingInfos": texts,
    })
}

/// Writes the bill of what was built from these packages and lies at `places`, and checks that it lacks nothing.
///
/// # Errors
/// Something is known of a component that it cannot be described with, or a component of the binary is missing in it.
pub fn write(places: &Places, packages: &Packages, names: &BTreeSet<String>, holdfast: &[u8]) -> Result<()> {
    let mut components = debian(packages, names)?;
    components.extend(boot_loaders()?);
    components.extend(crates(&places.source)?);
    components.extend(toolchain()?);
    if let Some(name) = sources(holdfast).into_iter().find(|name| {
        !components.iter().any(|part| part.origin == "cargo" && format!("{}-{}", part.name, part.version) == *name)
    }) {
        bail!("{name} is linked into our binary and not in the bill of materials");
    }
    let built = ["xen", "vmlinuz", "initramfs", "gateway.cpio"].map(|name| places.out.join(name));
    let hashes = output(Command::new("sha256sum").args(built), "coreutils")?;
    // One hash of all; their places are no part of it.
    let hash: String = String::from_utf8_lossy(&hashes).lines().filter_map(|line| line.get(..16)).collect();
    let text = serde_json::to_string_pretty(&document(env!("CARGO_PKG_VERSION"), &hash, &components))? + "\n";
    let file = places.out.join(FILE);
    fs::write(&file, text).with_context(|| file.display().to_string())
}

/// The Debian packages of those names.
fn debian(packages: &Packages, names: &BTreeSet<String>) -> Result<Vec<Component>> {
    let names: Vec<String> = names.iter().cloned().collect();
    let unpacked = packages.unpacked(&names)?;
    let wanted = names.iter().zip(&unpacked).map(|(name, (_, version))| format!("{name}={version}"));
    let text = output(Command::new("apt-cache").arg("show").args(wanted).env("LC_ALL", "C"), "apt")?;
    let hashes = hashes(&String::from_utf8_lossy(&text));
    let mut components = Vec::new();
    for (name, (directory, version)) in names.iter().zip(unpacked) {
        let hash = hashes.get(&(name.clone(), version.clone()));
        let text = match copyright(&directory, name)? {
            Ok(text) => text,
            // It has another package of the same source's.
            Err(other) => copyright(&packages.unpacked_one(&other)?.0, &other)?
                .map_err(|_| anyhow::anyhow!("{name} and {other} have no copyright file"))?,
        };
        components.push(Component {
            origin: "deb/debian",
            name: name.clone(),
            sha256: Some(hash.with_context(|| format!("apt knows no hash of {name} {version}"))?.clone()),
            version,
            licence: Licence::Text(text),
        });
    }
    Ok(components)
}

/// A package's copyright file below `root`; or the name of the package that has it.
fn copyright(root: &Path, package: &str) -> Result<Result<String, String>> {
    let directory = root.join("usr/share/doc").join(package);
    if let Ok(other) = fs::read_link(&directory) {
        return Ok(Err(other.to_string_lossy().into_owned()));
    }
    let file = directory.join("copyright");
    let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
    Ok(Ok(String::from_utf8_lossy(&bytes).into_owned()))
}

/// What apt says of the archives' hashes, by name and version.
fn hashes(shown: &str) -> BTreeMap<(String, String), String> {
    let stanzas = shown.split("\n\n").map(|stanza| {
        let field = |name: &str| {
            let line = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        ((field("Package"), field("Version")), field("SHA256"))
    });
    stanzas.filter(|(_, hash)| hash.len() == 64).collect()
}

/// The boot loader's packages, as they are installed here: parts of them are copied.
fn boot_loaders() -> Result<Vec<Component>> {
    let component = |name: &str| {
        let mut query = Command::new("dpkg-query");
        let version = output(query.args(["-W", "-f", "${Version}", name]), "dpkg")?;
        let text = copyright(Path::new("/"), name)?
            .or_else(|other| copyright(Path::new("/"), &other)?.map_err(anyhow::Error::msg))?;
        Ok(Component {
            origin: "deb/debian",
            name: name.to_owned(),
            version: String::from_utf8_lossy(&version).into_owned(),
            sha256: None,
            licence: Licence::Text(text),
        })
    };
    ["grub-pc-bin", "grub-efi-amd64-bin"].into_iter().map(component).collect()
}

/// Every crate that is linked into our binary.
fn crates(source: &Path) -> Result<Vec<Component>> {
    let mut tree = Command::new("cargo");
    tree.args([
        "tree",
        "-p",
        "holdfast",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--no-dedupe",
        "--locked",
    ]);
    let tree = output(tree.args(["--target", TARGET, "--format", "{p}|{l}"]).current_dir(source), "cargo")?;
    let lock = fs::read_to_string(source.join("Cargo.lock"))?;
    linked(&String::from_utf8_lossy(&tree), &lock)
}

/// `Cargo.lock`, as far as it is wanted.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The crates in what `cargo tree` prints.
fn linked(tree: &str, lock: &str) -> Result<Vec<Component>> {
    let lock: Lock = toml::from_str(lock).context("Cargo.lock")?;
    let lines: BTreeSet<&str> = tree.lines().filter(|line| !line.is_empty()).collect();
    let component = |line: &&str| {
        let (package, licence) = line.split_once('|').context("cargo tree prints another form")?;
        let mut words = package.split(' ');
        let name = words.next().unwrap_or_default().to_owned();
        let version = words.next().and_then(|word| word.strip_prefix('v')).context("no version")?.to_owned();
        let locked = lock.package.iter().find(|locked| locked.name == name && locked.version == version);
        let sha256 = locked.with_context(|| format!("Cargo.lock has no {name} {version}"))?.checksum.clone();
        if licence.is_empty() {
            bail!("{name} {version} says no licence");
        }
        // An old way of writing it.
        let licence = Licence::Expression(licence.replace('/', " OR "));
        Ok(Component { origin: "cargo", name, version, sha256, licence })
    };
    lines.iter().map(component).collect()
}

/// What the compiler links in besides.
fn toolchain() -> Result<Vec<Component>> {
    let version = output(Command::new("rustc").arg("--version"), "rustc")?;
    let version = String::from_utf8_lossy(&version).split(' ').nth(1).unwrap_or_default().to_owned();
    let component = |name: &str, version: String, licence: &str| Component {
        origin: "generic",
        name: name.to_owned(),
        version,
        sha256: None,
        licence: Licence::Expression(licence.to_owned()),
    };
    Ok(vec![
        component("rust-std", version, "MIT OR Apache-2.0"),
        // The one that the compiler brings along; it does not say which that is.
        component("musl", String::new(), "MIT"),
    ])
}

/// The crates whose sources a program names, in the places that its panics speak of: `NAME-VERSION`.
fn sources(program: &[u8]) -> BTreeSet<String> {
    let is_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(byte);
    let words = program.split(|byte| !is_path(byte)).filter_map(|word| std::str::from_utf8(word).ok());
    let mut found = BTreeSet::new();
    for word in words.filter(|word| word.contains("registry/src/")) {
        // Strings lie behind one another without anything between them.
        for rest in word.split("registry/src/").skip(1) {
            let mut parts = rest.split('/');
            if let (Some(_index), Some(name), Some("src")) = (parts.next(), parts.next(), parts.next()) {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n[[package]]\nname = \"raft\"\nversion = \"0.7.0\"\nchecksum = \"ab\"\n\
                        [[package]]\nname = \"cluster\"\nversion = \"0.1.0\"\n";

    #[test]
    fn what_cargo_links_is_listed_with_its_hash_and_licence() {
        let tree =
            "cluster v0.1.0 (/x/cluster)|MIT OR Apache-2.0\n\nraft v0.7.0|Apache-2.0/MIT\nraft v0.7.0|Apache-2.0/MIT\n";
        let crates = linked(tree, LOCK).unwrap();
        let [cluster, raft] = crates.as_slice() else { panic!("{crates:?}") };
        assert_eq!((cluster.name.as_str(), &cluster.sha256), ("cluster", &None));
        assert_eq!((raft.version.as_str(), raft.sha256.as_deref()), ("0.7.0", Some("ab")));
        assert_eq!(raft.licence, Licence::Expression("Apache-2.0 OR MIT".to_owned()));
        assert!(linked("raft v0.7.0|", LOCK).unwrap_err().to_string().contains("says no licence"));
        assert!(linked("raft v0.8.0|MIT", LOCK).unwrap_err().to_string().contains("Cargo.lock has no raft"));
    }

    #[test]
    fn hashes_are_those_of_the_version() {
        let hash = "9".repeat(64);
        let shown = format!("Package: nftables\nVersion: 1.0\nSHA256: {hash}\n\nPackage: nftables\nVersion: 0.9\n");
        let hashes = hashes(&shown);
        assert_eq!(hashes.len(), 1);
        assert_eq!(hashes.get(&("nftables".to_owned(), "1.0".to_owned())), Some(&hash));
    }

    #[test]
    fn a_program_tells_the_crates_that_it_was_built_from() {
        let program = b"\0/home/builder/.cargo/registry/src/index.crates.io-1949/raft-0.7.0/src/raft.rs\
            /home/builder/.cargo/registry/src/index.crates.io-1949/rand_core-0.6.4/src/lib.rs/rustc/ab/library/x.rs\xff";
        assert_eq!(sources(program), ["raft-0.7.0".to_owned(), "rand_core-0.6.4".to_owned()].into());
        let ours = sources(&fs::read("/proc/self/exe").unwrap());
        assert!(ours.iter().any(|name| name.starts_with("serde_json-")), "{ours:?}");
    }

    #[test]
    fn every_crate_of_our_binary_is_listed() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let crates = crates(source).unwrap();
        for name in ["holdfast", "cluster", "console", "hw", "raft", "snow", "serde_json", "curve25519-dalek"] {
            assert!(crates.iter().any(|part| part.name == name), "{name}");
        }
        assert!(crates.iter().all(|part| part.name != "anyhow"), "tools are not in the image");
    }

    #[test]
    fn the_document_names_each_component_once_and_holds_its_licence() {
        let component = |origin, name: &str, licence| Component {
            origin,
            name: name.to_owned(),
            version: "1:2.66-4+deb12u3".to_owned(),
            sha256: Some("ab".to_owned()),
            licence,
        };
        let components = [
            component("deb/debian", "libcap2", Licence::Text("in words".to_owned())),
            component("cargo", "libcap2", Licence::Expression("MIT".to_owned())),
        ];
        let document = document("0.1.0", "cafe", &components);
        assert_eq!(document, super::document("0.1.0", "cafe", &components), "it is the same every time");
        let packages = document["packages"].as_array().unwrap();
        let ids: BTreeSet<&str> = packages.iter().map(|package| package["SPDXID"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 3);
        let [_, libcap, _] = packages.as_slice() else { panic!("{packages:?}") };
        assert_eq!(libcap["versionInfo"], "1:2.66-4+deb12u3");
        assert_eq!(libcap["checksums"][0]["checksumValue"], "ab");
        assert_eq!(libcap["externalRefs"][0]["referenceLocator"], "pkg:deb/debian/libcap2@1%3A2.66-4%2Bdeb12u3");
        let licence = &document["hasExtractedLicensingInfos"][0];
        assert_eq!(licence["licenseId"], libcap["licenseDeclared"]);
        assert_eq!(licence["extractedText"], "in words");
        assert_eq!(document["relationships"].as_array().unwrap().len(), 3);
    }
}
