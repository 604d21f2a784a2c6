//! Hashes of passwords, as `users` of the filter `basic` have them: argon2id in PHC form, and bcrypt as `htpasswd -B` writes it.
//!
//! A check costs tens of milliseconds on purpose, so it is for threads that may block. What a hash may cost is bounded: a slip in
//! a file must not take the memory of a machine.

use std::fmt;

use argon2::{
    Argon2, Params, PasswordHasher as _, PasswordVerifier as _,
    password_hash::phc::{self, Decimal},
};

use super::Digest;

/// A name, a colon and a password have so many bytes at most, so that what is read and hashed is bounded.
pub const LONGEST_CREDENTIALS: usize = 768;

/// bcrypt reads so many bytes of a password and no more: a longer one is refused instead of being cut.
const MOST_BYTES_OF_BCRYPT: usize = 72;

/// Costs of bcrypt: below the first it is guessed quickly, above the last a check takes seconds.
const COSTS_OF_BCRYPT: std::ops::RangeInclusive<u32> = 4..=16;

/// The most memory of one check, in KiB.
const MOST_MEMORY: u32 = 256 * 1024;

/// The most passes over it.
const MOST_PASSES: u32 = 64;

/// The version of argon2 that is meant where none is written is an old one, which is refused (RFC 9106 §3.1).
const VERSION: Decimal = 0x13;

/// Why a text is no hash of a password. Nothing of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHash(&'static str);

impl fmt::Display for InvalidHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: 'tollgate hash-password' makes one", self.0)
    }
}

impl std::error::Error for InvalidHash {}

/// The hash of a password.
#[derive(Clone)]
pub struct PasswordHash(Kind);

#[derive(Clone)]
enum Kind {
    Argon2id(Box<phc::PasswordHash>),
    Bcrypt(String),
}

impl PasswordHash {
    /// Tells it from others.
    pub fn stamp(&self) -> Digest {
        match &self.0 {
            Kind::Argon2id(hash) => Digest::of(hash.to_string().as_bytes()),
            Kind::Bcrypt(hash) => Digest::of(hash.as_bytes()),
        }
    }

    /// Reads a hash.
    ///
    /// # Errors
    /// Why it is none, or none that is taken.
    pub fn read(text: &str) -> Result<Self, InvalidHash> {
        if text.starts_with("$argon2id$") {
            return argon2id(text).map(|hash| Self(Kind::Argon2id(Box::new(hash))));
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            return bcrypt_hash(text).map(|hash| Self(Kind::Bcrypt(hash)));
        }
        Err(InvalidHash("it is neither argon2id ('$argon2id$...') nor bcrypt ('$2y$...')"))
    }

    /// The hash of `password`, as argon2id with the least costs that OWASP recommends.
    ///
    /// # Errors
    /// There is no salt to be had.
    pub fn of(password: &[u8]) -> Result<String, super::NoEntropy> {
        let hash = Argon2::default().hash_password(password).map_err(|_| super::NoEntropy)?;
        Ok(hash.to_string())
    }

    /// Whether it is the hash of `password`. Takes the same time for every password.
    pub fn is_of(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Argon2id(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
            Kind::Bcrypt(hash) => {
                let read = &password[..password.len().min(MOST_BYTES_OF_BCRYPT)];
                bcrypt::verify(read, hash).unwrap_or(false) && read.len() == password.len()
            }
        }
    }
}

/// Enough to tell two hashes apart, too little to guess at.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Argon2id(hash) => write!(f, "argon2id {:?}", Digest::of(hash.to_string().as_bytes())),
            Kind::Bcrypt(hash) => write!(f, "bcrypt {:?}", Digest::of(hash.as_bytes())),
        }
    }
}

fn argon2id(text: &str) -> Result<phc::PasswordHash, InvalidHash> {
    let unreadable = InvalidHash("it begins like argon2id and cannot be read");
    let hash = phc::PasswordHash::new(text).map_err(|_| unreadable)?;
    let params = Params::try_from(&hash).map_err(|_| unreadable)?;
    if hash.salt.is_none() || hash.hash.is_none() || hash.version != Some(VERSION) {
        return Err(unreadable);
    }
    if params.m_cost() > MOST_MEMORY || params.t_cost() > MOST_PASSES {
        return Err(InvalidHash("a check would cost more than 256 MiB or 64 passes"));
    }
    Ok(hash)
}

fn bcrypt_hash(text: &str) -> Result<String, InvalidHash> {
    let unreadable = InvalidHash("it begins like bcrypt and cannot be read");
    let parts: bcrypt::HashParts = text.parse().map_err(|_| unreadable)?;
    // Its own letters are looked at only when a password is checked.
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"./".contains(&byte);
    if text.len() != 60 || !text.as_bytes()[7..].iter().copied().all(letters) {
        return Err(unreadable);
    }
    if !COSTS_OF_BCRYPT.contains(&parts.get_cost()) {
        return Err(InvalidHash("its cost is none from 4 to 16"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// `htpasswd -nbB -C 5 u myPassword` of Apache's documentation, and others of public test suites.
    const KNOWN: [(&str, &str); 4] = [
        ("myPassword", "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"),
        ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
        ("U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
        ("password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"),
    ];

    #[test]
    fn hashes_of_other_programs_are_known() {
        for (password, text) in KNOWN {
            let hash = PasswordHash::read(text).unwrap();
            assert!(hash.is_of(password.as_bytes()), "{text}");
            for wrong in ["", "Password", "myPassword ", "u*u"] {
                assert!(!hash.is_of(wrong.as_bytes()), "{text} {wrong}");
            }
        }
    }

    #[test]
    fn what_it_makes_it_reads() {
        let text = PasswordHash::of(b"hunter2").unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let hash = PasswordHash::read(&text).unwrap();
        assert!(hash.is_of(b"hunter2") && !hash.is_of(b"hunter"));
        assert_ne!(text, PasswordHash::of(b"hunter2").unwrap(), "each has a salt of its own");
    }

    #[test]
    fn bcrypt_cuts_no_password() {
        let (full, longer) = ("x".repeat(72), "x".repeat(73));
        let hash = PasswordHash::read(&bcrypt::hash(&full, 4).unwrap()).unwrap();
        assert!(hash.is_of(full.as_bytes()) && !hash.is_of(longer.as_bytes()));
    }

    #[test]
    fn other_hashes_and_costly_ones_are_refused_without_being_repeated() {
        let bcrypt = KNOWN[0].1;
        for wrong in [
            "",
            "hunter2",
            "$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00",
            "{SHA}5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ",
            "$argon2id$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=4000000,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=65536,t=9999,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=65536,t=2,p=1$$",
            &bcrypt.replace("$05$", "$31$"),
            &bcrypt.replace("$05$", "$03$"),
            &bcrypt[..59],
            &format!("{bcrypt}x"),
            &bcrypt.replace('Q', "!"),
            &bcrypt.replace("$2y$", "$2x$"),
        ] {
            let error = PasswordHash::read(wrong).map(|_| ()).unwrap_err().to_string();
            assert!(!wrong.contains('$') || !error.contains(&wrong[wrong.len() / 2..]), "{error}");
        }
        assert!(!format!("{:?}", PasswordHash::read(bcrypt).unwrap()).contains("c4WoMPo3"));
    }
}
