-- The state of one key, as the other scripts have it at hand. This text stands before theirs.
-- Step for step what src/fleet/book.rs and share.rs do, with the same arithmetic.
local MANY = 1125899906842624
local key, channel = KEYS[1], ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local function max(a, b) if a > b then return a end return b end
local function min(a, b) if a < b then return a end return b end
local function less(a, b) if a > b then return a - b end return 0 end
local function text(n) return string.format('%.0f', n) end
-- The fields of the hash: the protocol's version, the state without its lists, and the lists. Those are rows of doubles: a
-- message reads them without a table for each row. Members are divided into pages, so that a message writes only its own.
local s
local function load(more)
  local got = redis.call('HMGET', key, 'v', 'state', 'ids', 'ring', more)
  if got[1] and got[1] ~= '1' then return redis.error_reply('TGVERSION ' .. got[1]) end
  -- A hash of somebody else's: nothing is to be written to it.
  if not got[1] and redis.call('HLEN', key) > 0 then return redis.error_reply('TGFOREIGN a hash without a version') end
  if got[2] then s = cmsgpack.unpack(got[2])
  else
    s = {run = '', epoch = 0, born = 0, seq = 0, opens = 0, lost = 0, cr = 0, ct = 0, ur = 0, ut = 0, us = 0, sweep = 0,
      learnt = {0, 0, 0, 0, 0, 0}, doors = {0, 0, 0, 0}, ramp = 0, cs = 0, dn = 0, de = 0, du = 0, dm = 0}
  end
  return nil, got[3] or '', got[4] or '', got[5]
end
