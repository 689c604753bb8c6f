//! Messages as the scripts read and write them: numbers in a row. Pure.

use crate::fleet::message::{Amount, Close, Correction, Held, Micros, Notice, Quota, Reply, Take};

/// No limit, or no known end.
const NONE: &str = "-1";

/// The arguments of `take.lua`. `now` and `run` are the server's where they are empty.
pub(super) fn take(channel: &str, now: &str, run: &str, take: &Take) -> Vec<String> {
    let name = take.key.name.clone().unwrap_or_default();
    let mut args: Vec<String> =
        vec![channel.into(), now.into(), run.into(), take.key.digest.clone(), name, take.member.to_string()];
    let terms = &take.terms;
    let mut put = |numbers: &[u64]| args.extend(numbers.iter().map(u64::to_string));
    put(&[take.call, take.epoch, take.seq]);
    put(&[terms.window, terms.lease, terms.bucket, terms.split, terms.heartbeat, terms.hold]);
    let limits = [take.limits.requests, take.limits.tokens, take.limits.daily];
    args.extend(limits.map(|limit| limit.map_or(NONE.to_owned(), |limit| limit.to_string())));
    let mut put = |numbers: &[u64]| args.extend(numbers.iter().map(u64::to_string));
    put(&[take.day.number, take.day.ends, take.day_seen]);
    for amount in [take.held, take.part] {
        put(&[amount.requests, amount.tokens]);
    }
    put(&[take.day_held, take.day_spent]);
    for amount in [take.spent, take.used, take.want] {
        put(&[amount.requests, amount.tokens]);
    }
    put(&[u64::from(take.weight), take.close_seq, u64::from(take.leave), take.uses.len() as u64]);
    for used in &take.uses {
        put(&[used.age, used.amount.requests, used.amount.tokens]);
    }
    put(&[take.corrections.len() as u64]);
    for correction in &take.corrections {
        let Correction { bucket, requests, tokens, daily } = correction;
        args.extend([bucket.to_string(), requests.to_string(), tokens.to_string(), daily.to_string()]);
    }
    args.push(take.sizes.len().to_string());
    args.extend(take.sizes.iter().map(u64::to_string));
    args
}

/// The arguments of `close.lua`.
pub(super) fn close(channel: &str, now: &str, digest: &str, window: Micros, close: Close) -> Vec<String> {
    let or = |n: Option<u64>| n.map_or(NONE.to_owned(), |n| n.to_string());
    let flag = |flag: bool| u8::from(flag).to_string();
    vec![
        channel.into(),
        now.into(),
        digest.into(),
        window.to_string(),
        close.dimension.to_string(),
        or(close.lasts),
        or(close.limit),
        flag(close.spent),
        flag(close.zero),
        flag(close.ramp),
        close.probe.to_string(),
    ]
}

/// The answer of `take.lua`; `None` where it is none.
pub(super) fn reply(text: &str) -> Option<Reply> {
    let numbers: Vec<i64> = text.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [
        call,
        epoch,
        seq,
        now,
        grant_r,
        grant_t,
        part_r,
        part_t,
        daily,
        wait,
        held,
        requests,
        tokens,
        rpd,
        differs,
        members,
        hungry,
        day,
        day_used,
        probe,
        close_seq,
        closes @ ..,
    ] = &*numbers
    else {
        return None;
    };
    let n = |n: &i64| u64::try_from(*n).ok();
    let limit = |limit: &i64| u64::try_from(*limit).ok();
    let held = match held {
        0 => Held::Quota,
        1 => Held::Closed,
        2 => Held::New,
        3 => Held::Day,
        _ => return None,
    };
    let closes = closes.chunks(7).map(|one| one.try_into().ok().map(read_close));
    let closes: Vec<Close> = closes.collect::<Option<_>>()?;
    Some(Reply {
        call: n(call)?,
        epoch: n(epoch)?,
        seq: n(seq)?,
        now: n(now)?,
        grant: Amount::new(n(grant_r)?, n(grant_t)?),
        part: Amount::new(n(part_r)?, n(part_t)?),
        daily: n(daily)?,
        wait: n(wait)?,
        held,
        limits: Quota { requests: limit(requests), tokens: limit(tokens), daily: limit(rpd) },
        differs: *differs != 0,
        members: u32::try_from(*members).ok()?,
        hungry: u32::try_from(*hungry).ok()?,
        day: n(day)?,
        day_used: n(day_used)?,
        probe: *probe != 0,
        close_seq: n(close_seq)?,
        closes,
    })
}

fn read_close([dimension, lasts, limit, spent, zero, ramp, probe]: &[i64; 7]) -> Close {
    Close {
        dimension: u8::try_from(*dimension).unwrap_or(3),
        lasts: u64::try_from(*lasts).ok(),
        limit: u64::try_from(*limit).ok(),
        spent: *spent != 0,
        zero: *zero != 0,
        ramp: *ramp != 0,
        probe: u64::try_from(*probe).unwrap_or(0),
    }
}

/// What the scripts publish; `None` for what is not theirs.
pub(super) fn notice(text: &str) -> Option<Notice> {
    let mut words = text.split(' ');
    let (what, digest) = (words.next()?, words.next()?.to_owned());
    let numbers: Vec<i64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    match (what, &*numbers) {
        ("born", [epoch]) => Some(Notice::born(digest, u64::try_from(*epoch).ok()?)),
        ("close", [_, dimension, rest @ ..]) => {
            let [lasts, limit, spent, zero, ramp, probe] = rest else { return None };
            let close = read_close(&[*dimension, *lasts, *limit, *spent, *zero, *ramp, *probe]);
            Some(Notice::closed(digest, close))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_heard_as_it_was_said() {
        let said = Close { limit: Some(7), spent: true, ramp: true, probe: 5, ..Close::new(2, Some(9)) };
        let args = close("c", "", "abc", 60, said);
        let heard = notice(&format!("close {}", args[2..].join(" ")));
        assert_eq!(heard, Some(Notice::closed("abc".to_owned(), said)));
        assert_eq!(notice("born abc 12"), Some(Notice::born("abc".to_owned(), 12)));
        assert_eq!((notice("born abc"), notice(""), notice("close abc 1 2")), (None, None, None));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(reply(""), None);
        assert_eq!(reply("1 2 3"), None);
        assert_eq!(reply(&["x"; 21].join(" ")), None);
        assert_eq!(reply(&["-5"; 21].join(" ")), None);
        assert!(reply(&["1"; 21].join(" ")).is_some_and(|reply| reply.closes.is_empty()));
        assert!(reply(&["1"; 28].join(" ")).is_some_and(|reply| reply.closes.len() == 1));
        assert_eq!(reply(&["1"; 24].join(" ")), None);
    }
}
