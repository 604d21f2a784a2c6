//! The simple kind of a signature, for clients that are a shell: `keyid=ID,t=SECONDS,v1=HEX`.

/// A signature that was read; nothing of it has been verified.
#[derive(Debug, PartialEq, Eq)]
pub struct TimestampSignature<'a> {
    /// Whose it says that it is.
    pub key_id: &'a str,
    /// When it was made.
    pub created: i64,
    /// The MAC as it was written.
    pub hex: &'a str,
    /// The MAC.
    pub mac: [u8; 32],
}

impl<'a> TimestampSignature<'a> {
    /// Reads the only form that there is.
    pub fn read(text: &'a str) -> Option<Self> {
        let (key_id, rest) = text.strip_prefix("keyid=")?.split_once(",t=")?;
        let (time, hex) = rest.split_once(",v1=")?;
        let canonical = time.len() <= 15 && time.bytes().all(|byte| byte.is_ascii_digit()) && !time.starts_with('0');
        let created = time.parse().ok().filter(|_| canonical)?;
        let digits = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !digits {
            return None;
        }
        let mut mac = [0; 32];
        for (byte, at) in mac.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
        }
        (!key_id.is_empty() && !key_id.contains(',')).then_some(Self { key_id, created, hex, mac })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_form() {
        let hex = "0123456789abcdef".repeat(4);
        let good = format!("keyid=k1,t=1700000000,v1={hex}");
        let read = TimestampSignature::read(&good);
        assert_eq!(
            read.map(|read| (read.key_id, read.created, read.mac[1], read.mac[31])),
            Some(("k1", 1_700_000_000, 0x23, 0xef))
        );
        for wrong in [
            String::new(),
            good.replace("k1", ""),
            good.replace("k1", "a,b"),
            good.replace("keyid=k1,t=1700000000", "t=1700000000,keyid=k1"),
            good.replace(",t", ", t"),
            good.replace("t=1", "t=01"),
            good.replace("t=1", "t=-1"),
            good.replace("t=1", "t=+1"),
            good.replace("1700000000", ""),
            good.replace("1700000000", "1700000000.5"),
            good.replace("1700000000", "1700000000000000"),
            good.replace("abcdef", "ABCDEF"),
            good.replace("abcdef", "abcdeg"),
            format!("{good}00"),
            format!("{good},v1={hex}"),
            good[..good.len() - 1].to_owned(),
        ] {
            assert_eq!(TimestampSignature::read(&wrong), None, "{wrong}");
        }
    }
}
