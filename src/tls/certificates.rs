//! Certificates of a listener: read from files, chosen by the name that a client asks for, read again when the files
//! change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    pem,
    stamp::{Reread, Stamp, stamp},
};
use crate::{
    auth,
    units::{FileRef, Problems},
    yaml::{Node, Spanned},
};

/// One entry of `certificates:`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// The certificate and its chain, as a PEM file.
    pub cert: FileRef,
    /// Its private key, as a PEM file that only the gateway can read.
    pub key: FileRef,
    /// Names it is shown for, `*.example` among them. Default: those in the certificate.
    #[serde(default)]
    pub names: Vec<String>,
}

/// The certificates of one listener.
pub struct Certificates {
    files: Vec<CertificateConfig>,
    /// Groups that may read the keys.
    groups: Box<[u32]>,
    provider: Arc<CryptoProvider>,
    table: ArcSwap<Table>,
    read: Mutex<Vec<Read>>,
}

/// What was found in the files of one certificate.
struct Read {
    /// The certificate's file.
    file: String,
    stamps: Reread<[Stamp; 2]>,
    /// What they, or those before them, held.
    entry: Option<Arc<Entry>>,
}

/// One certificate with its key.
struct Entry {
    certified: Arc<CertifiedKey>,
    names: Vec<String>,
    /// End of validity, in seconds since 1970.
    end: Option<i64>,
}

#[derive(Default)]
struct Table {
    /// By whole name; those for `*.example` stand under `.example`. Several per name: RSA and ECDSA.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    first: Vec<Arc<CertifiedKey>>,
    /// End of validity by name, in seconds since 1970.
    ends: BTreeMap<String, i64>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.load();
        let names: BTreeSet<&String> = table.by_name.keys().collect();
        f.debug_struct("Certificates").field("files", &self.files).field("names", &names).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads every file; what is wrong goes to `problems`. `node` is the listener's `tls`; `groups` may read the keys.
    pub(crate) fn load(
        files: &[Spanned<CertificateConfig>],
        node: &Node,
        groups: &[u32],
        provider: Arc<CryptoProvider>,
        problems: &mut Problems,
    ) -> Self {
        let mut read = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let stamps = stamps(file);
            let entry = Entry::read(file, groups, &provider).map_err(|(key, message)| {
                problems.push(node.at(&format!("certificates[{number}]")).at(key).place().problem(message));
            });
            read.push(Read {
                file: file.cert.to_string(),
                stamps: Reread::new(stamps),
                entry: entry.ok().map(Arc::new),
            });
        }
        let files = files.iter().map(|file| file.value.clone()).collect();
        Self {
            files,
            groups: groups.into(),
            provider,
            table: ArcSwap::from_pointee(Table::of(&read)),
            read: Mutex::new(read),
        }
    }

    /// Reads the files again that have changed. What cannot be read leaves what was read before, and is said once.
    pub fn refresh(&self) {
        let (mut all, mut renewed) = (self.read.lock(), Vec::new());
        for (file, read) in self.files.iter().zip(all.iter_mut()) {
            let found = stamps(file);
            if !read.stamps.have_changed(&found) {
                continue;
            }
            match Entry::read(file, &self.groups, &self.provider) {
                Ok(entry) => {
                    read.entry = Some(Arc::new(entry));
                    renewed.push(file.cert.to_string());
                    read.stamps = Reread::new(found);
                }
                Err((_, message)) => {
                    let message = format!("certificate {}: {message}; the one that was read before stays", file.cert);
                    read.stamps.failed(found, &message);
                }
            }
        }
        if !renewed.is_empty() {
            self.table.store(Arc::new(Table::of(&all)));
            log::info!("certificates were read again: {}", renewed.join(", "));
        }
    }

    /// When each name's certificate stops being valid, in seconds since 1970.
    pub fn ends(&self) -> BTreeMap<String, i64> {
        self.table.load().ends.clone()
    }
}

fn stamps(config: &CertificateConfig) -> [Stamp; 2] {
    [stamp(&config.cert), stamp(&config.key)]
}

impl Entry {
    /// # Errors
    /// The key of the settings that is to blame, and why.
    fn read(
        config: &CertificateConfig,
        groups: &[u32],
        provider: &CryptoProvider,
    ) -> Result<Self, (&'static str, String)> {
        let (of_cert, of_key) = (|message| ("cert", message), |message| ("key", message));
        let cert = config.cert.path().map_err(of_cert)?;
        let chain = pem::certificates(&cert).map_err(of_cert)?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(of_cert(format!("'{cert}' holds no certificate")));
        };
        let key = pem::key(&config.key.path().map_err(of_key)?, groups).map_err(of_key)?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|e| of_key(format!("'{}' and '{}' do not belong together: {e}", config.cert, config.key)))?;
        let names = if config.names.is_empty() { auth::dns_names(&leaf) } else { config.names.clone() };
        let names = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(Self { certified: Arc::new(certified), names, end: auth::not_after(&leaf) })
    }
}

impl Table {
    fn of(read: &[Read]) -> Self {
        let mut table = Self::default();
        for (file, entry) in read.iter().filter_map(|read| Some((&read.file, read.entry.as_ref()?))) {
            if table.first.is_empty() {
                table.first.push(entry.certified.clone());
            }
            // One without names is shown under its file.
            let shown: &[String] = if entry.names.is_empty() { std::slice::from_ref(file) } else { &entry.names };
            for (name, end) in shown.iter().zip(std::iter::repeat(entry.end)).filter_map(|(n, e)| Some((n, e?))) {
                // Of several, the one that ends first wants to be seen to.
                table.ends.entry(name.clone()).and_modify(|known| *known = end.min(*known)).or_insert(end);
            }
            for name in &entry.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                table.by_name.entry(name.to_owned()).or_default().push(entry.certified.clone());
            }
        }
        table
    }

    /// The certificates for a name: by the whole name, then by the wildcard one level up, else the first.
    fn for_name(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let found = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            // A wildcard stands for one label (RFC 6125 §6.4.3).
            let parent = name.find('.').map(|dot| &name[dot..]);
            self.by_name.get(&name).or_else(|| self.by_name.get(parent?))
        });
        found.unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let candidates = table.for_name(hello.server_name());
        let fits = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(fits).or_else(|| candidates.first()).cloned()
    }
}
