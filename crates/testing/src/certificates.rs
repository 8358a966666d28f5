//! Parts of certificates that rcgen does not make.

use rcgen::CustomExtension;

/// Alternative names of any content, each with its tag: 1 for mail, 2 for DNS, 6 for a URI, 7 for an
/// address.
pub fn alternative_names(names: &[(u8, &[u8])]) -> CustomExtension {
    let mut content = Vec::new();
    for (tag, text) in names {
        content.extend([0x80 | tag, u8::try_from(text.len()).unwrap()]);
        content.extend(*text);
    }
    let mut sequence = vec![0x30, u8::try_from(content.len()).unwrap()];
    sequence.extend(content);
    CustomExtension::from_oid_content(&[2, 5, 29, 17], sequence)
}
