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
local s
local function load(more)
  local got = redis.call('HMGET', key, 'v', 'state', more)
  if got[1] and got[1] ~= '1' then return nil, nil, got[1] end
  if got[2] then s = cmsgpack.unpack(got[2])
  else
    s = {run = '', epoch = 0, born = 0, seq = 0, opens = 0, lost = 0, ring = {}, cr = 0, ct = 0, ur = 0, ut = 0, us = 0,
      m = {}, learnt = {0, 0, 0, 0, 0, 0}, doors = {0, 0, 0, 0}, ramp = 0, cs = 0, dn = 0, de = 0, du = 0, dm = 0}
  end
  return s, got[3], nil
end
