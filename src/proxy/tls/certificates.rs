//! Certificates of a listener: read from files, chosen by the name that a client asks for, read again when the files
//! change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs,
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    auth,
    units::{Problems, private, tree::At},
};

/// One entry of `certificates:`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// The certificate and its chain, as a PEM file.
    pub cert: String,
    /// Its private key, as a PEM file that only the gateway can read.
    pub key: String,
    /// Names it is shown for, `*.example` among them. Default: those in the certificate.
    #[serde(default)]
    pub names: Vec<String>,
}

/// The certificates of one listener.
pub struct Certificates {
    files: Vec<CertificateConfig>,
    provider: Arc<CryptoProvider>,
    table: ArcSwap<Table>,
}

#[derive(Default)]
struct Table {
    /// By whole name; those for `*.example` stand under `.example`. Several per name: RSA and ECDSA.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    first: Vec<Arc<CertifiedKey>>,
    stamps: Vec<Option<SystemTime>>,
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
    /// Reads every file; what is wrong goes to `problems`.
    pub(super) fn load(
        files: &[At<CertificateConfig>],
        provider: Arc<CryptoProvider>,
        problems: &mut Problems,
    ) -> Self {
        let mut table = Table::default();
        for file in files {
            if let Err(message) = table.add(file, &provider) {
                problems.push(file.place.problem(message));
            }
        }
        let files = files.iter().map(|file| file.value.clone()).collect();
        Self { files, provider, table: ArcSwap::from_pointee(table) }
    }

    /// Reads the files again if one has changed. What cannot be read leaves everything as it was.
    pub fn refresh(&self) {
        let stamps: Vec<Option<SystemTime>> = self.files.iter().flat_map(stamps).collect();
        if stamps == self.table.load().stamps {
            return;
        }
        let mut table = Table::default();
        for file in &self.files {
            if let Err(message) = table.add(file, &self.provider) {
                log::error!("certificate {}: {message}; the one that was read before stays", file.cert);
                return;
            }
        }
        log::info!(
            "certificates were read again: {}",
            self.files.iter().map(|f| &*f.cert).collect::<Vec<_>>().join(", ")
        );
        self.table.store(Arc::new(table));
    }

    /// When each name's certificate stops being valid, in seconds since 1970.
    pub fn ends(&self) -> BTreeMap<String, i64> {
        self.table.load().ends.clone()
    }
}

/// When the files of a certificate were written last. A link that is turned to another file counts too.
fn stamps(config: &CertificateConfig) -> [Option<SystemTime>; 2] {
    let written = |path: &str| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    [written(&config.cert), written(&config.key)]
}

impl Table {
    fn add(&mut self, config: &CertificateConfig, provider: &CryptoProvider) -> Result<(), String> {
        self.stamps.extend(stamps(config));
        let unreadable = |path: &str, e: &dyn fmt::Display| format!("cannot read '{path}': {e}");
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&config.cert)
            .and_then(Iterator::collect)
            .map_err(|e| unreadable(&config.cert, &e))?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(format!("'{}' holds no certificate", config.cert));
        };
        private(Path::new(&config.key))?;
        let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|e| unreadable(&config.key, &e))?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|e| format!("'{}' and '{}' do not belong together: {e}", config.cert, config.key))?;
        let certified = Arc::new(certified);
        let names = if config.names.is_empty() { auth::dns_names(&leaf) } else { config.names.clone() };
        if self.stamps.len() == 2 {
            self.first.push(certified.clone());
        }
        for name in names {
            let name = name.to_ascii_lowercase();
            if let Some(end) = auth::not_after(&leaf) {
                self.ends.insert(name.clone(), end);
            }
            let name = name.strip_prefix('*').map(str::to_owned).unwrap_or(name);
            self.by_name.entry(name).or_default().push(certified.clone());
        }
        Ok(())
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
