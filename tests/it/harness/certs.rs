//! Certificates: an authority of our own, and what it signs, as files.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, SanType};
use tempfile::TempDir;

/// A folder with `ca.pem`, and whatever is issued.
pub(crate) struct Certs {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certs {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        Self { dir, authority }
    }

    /// Issues `NAME.pem` and `NAME.key` with this common name and these alternative names (a URI has `://`).
    pub(crate) fn issue(&self, file: &str, common: &str, names: &[&str]) {
        self.issue_until(file, common, names, SystemTime::now() + Duration::from_secs(30 * 86400));
    }

    /// The same, valid until then, from a year before.
    pub(crate) fn issue_until(&self, file: &str, common: &str, names: &[&str], end: SystemTime) {
        let (dns, uris): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| !name.contains("://"));
        let mut params = CertificateParams::new(dns.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.not_before = (end - Duration::from_secs(365 * 86400)).into();
        params.not_after = end.into();
        params.distinguished_name.push(DnType::CommonName, common);
        self.sign(file, &params);
    }

    /// Issues `NAME.pem` and `NAME.key` with this subject and these alternative names, of any kind.
    pub(crate) fn issue_exactly(&self, file: &str, subject: &[(DnType, &str)], names: Vec<SanType>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names;
        self.sign(file, &params);
    }

    fn sign(&self, file: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        // The key first: whoever sees the new certificate finds its key there.
        let secret = self.dir.path().join(format!("{file}.key"));
        fs::write(&secret, key.serialize_pem()).unwrap();
        fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(self.dir.path().join(format!("{file}.pem")), certificate.pem()).unwrap();
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.dir.path().join(file).display().to_string()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `cert: ..., key: ...` in YAML.
    pub(crate) fn yaml(&self, file: &str) -> String {
        format!("cert: {}, key: {}", self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")))
    }
}
