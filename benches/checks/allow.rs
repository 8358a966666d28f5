//! Returns whether an answer is an allow. It reads the bytes, because decoding would cost as much
//! as the server spends on the answer.

/// A gRPC message with a `CheckResponse` that has only an `ok_response`, and whose status, if any,
/// is OK. An empty response is an ALLOW for Envoy, but not here.
pub(crate) fn is_allow(frame: &[u8]) -> bool {
    let Some((head, message)) = frame.split_at_checked(5) else { return false };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    head[0] == 0 && length == message.len() && allows(message) == Some(true)
}

/// Field numbers of `CheckResponse`.
const STATUS: u64 = 1;
const DENIED: u64 = 2;
const OK: u64 = 3;
const ERROR: u64 = 5;
/// Field number of `google.rpc.Status`.
const CODE: u64 = 1;

fn allows(mut message: &[u8]) -> Option<bool> {
    let mut ok = false;
    while !message.is_empty() {
        let (number, value) = field(&mut message)?;
        match (number, value) {
            (STATUS, Value::Bytes(mut status)) => {
                while !status.is_empty() {
                    if let (CODE, Value::Number(1..)) = field(&mut status)? {
                        return Some(false);
                    }
                }
            }
            (OK, Value::Bytes(response)) => ok = !response.is_empty(),
            (DENIED | ERROR, _) => return Some(false),
            _ => {}
        }
    }
    Some(ok)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn field<'a>(message: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = varint(message)?;
    let value = match key & 7 {
        0 => Value::Number(varint(message)?),
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            let (bytes, rest) = message.split_at_checked(length)?;
            *message = rest;
            Value::Bytes(bytes)
        }
        _ => return None,
    };
    Some((key >> 3, value))
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}
