-- KEYS: the state. ARGV: channel, now or '', digest, window, dimension, lasts or -1, limit or -1, spent, zero, ramp, probe.
local refused = load('v')
if refused then return refused end
local window, dimension = tonumber(ARGV[4]), tonumber(ARGV[5])
local lasts, limit = tonumber(ARGV[6]), tonumber(ARGV[7])
s.cs = s.cs + 1
if dimension == 4 then
  s.doors, s.ramp = {0, 0, 0, 0}, 0
  if ARGV[9] == '1' then s.learnt = {0, 0, 0, 0, 0, 0} end
else
  local at = min(dimension, 3) + 1
  if limit >= 0 and at < 4 then
    s.learnt[at * 2 - 1], s.learnt[at * 2] = limit, now + 60 * window
  end
  if ARGV[10] == '1' then s.ramp = 1 end
  if lasts >= 0 or ARGV[9] == '1' then
    local till = now + (lasts >= 0 and lasts or MANY)
    if s.doors[at] ~= 0 then till = max(till, s.doors[at][1]) end
    local every = tonumber(ARGV[11])
    if every == 0 then every = MANY end
    s.doors[at] = {till, min(till, now + every), every, limit, tonumber(ARGV[8]), tonumber(ARGV[9])}
  end
end
redis.call('HSET', key, 'v', '1', 'state', cmsgpack.pack(s))
redis.call('PEXPIRE', key, text(window / 1000 * 1440))
redis.call('PUBLISH', channel, 'close ' .. table.concat(ARGV, ' ', 3))
return 'OK'
