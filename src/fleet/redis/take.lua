-- KEYS: the state. ARGV: channel, now or '', run or '', digest, name, then the numbers of a take.
local member = ARGV[6]
local _, known, version = load('r:' .. member)
if version then return redis.error_reply('TGVERSION ' .. version) end
local run = ARGV[3]
if run == '' then run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or 'unknown' end
local a = 6
local function arg() a = a + 1 return tonumber(ARGV[a]) end
local call, epoch, seq = arg(), arg(), arg()
local window, lease, bucket, split, heartbeat, hold = arg(), arg(), arg(), arg(), arg(), arg()
local lr, lt, ld = arg(), arg(), arg()
local day_number, day_ends, day_seen = arg(), arg(), arg()
local held_r, held_t, part_r, part_t, day_held, day_spent = arg(), arg(), arg(), arg(), arg(), arg()
local spent_r, spent_t, used_r, used_t, want_r, want_t = arg(), arg(), arg(), arg(), arg(), arg()
local weight, close_seq, leave = max(arg(), 1), arg(), arg() == 1
local quarantine = window + 2 * lease + split
-- A member: id, call, contact, part, lease and its end, day, want, head, weight, served, due, limits, left.
local ID, CALL, CONTACT, PART_R, PART_T, LEASE_R, LEASE_T, ENDS, DAILY = 1, 2, 3, 4, 5, 6, 7, 8, 9
local WANT_R, WANT_T, HEAD, WEIGHT, SERVED, DUE, LIM_R, LIM_T, LIM_D, LEFT, PROBES = 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20
local members = s.m
local function most_of(limit) if limit < 0 then return MANY end return limit end

local function lose()
  s.lost = 1
  s.opens = max(s.opens, s.born + quarantine)
  s.us = s.born + split
  local r, t = 0, 0
  for i = 1, #members do r, t = r + members[i][PART_R], t + members[i][PART_T] end
  s.ur = lr < 0 and 0 or less(math.floor(lr / 2), r)
  s.ut = lt < 0 and 0 or less(math.floor(lt / 2), t)
  if ld >= 0 then
    s.dm = max(lr, 0) + math.ceil(less(ld, s.du) / 20)
    s.du = s.du + s.dm
  end
end

local born = false
local fresh = s.run == ''
if fresh or s.run ~= run or (epoch == s.epoch and seq > s.seq) then
  s.run, s.born, s.epoch, s.lost, s.opens = run, now, now, 0, now + hold
  if not fresh or epoch ~= 0 then lose() end
  born = true
elseif epoch ~= 0 and epoch ~= s.epoch and s.lost == 0 and now < s.born + quarantine then
  lose()
end
if born then redis.call('PUBLISH', channel, 'born ' .. ARGV[4] .. ' ' .. text(s.epoch)) end

local mine
for i = 1, #members do if members[i][ID] == member then mine = members[i] break end end
local function save()
  redis.call('HSET', key, 'v', '1', 'state', cmsgpack.pack(s))
end
if mine and mine[CALL] >= call and known then
  if born then save() end
  return known
end
s.seq = s.seq + 1

-- What has left the window.
local ring, gone = s.ring, 0
while gone * 3 < #ring and ring[gone * 3 + 1] <= now do
  s.cr, s.ct = less(s.cr, ring[gone * 3 + 2]), less(s.ct, ring[gone * 3 + 3])
  gone = gone + 1
end
if gone > 0 then
  local rest = {}
  for i = gone * 3 + 1, #ring do rest[#rest + 1] = ring[i] end
  ring, s.ring = rest, rest
end
for i = 1, 5, 2 do
  if s.learnt[i] > 0 and s.learnt[i + 1] <= now then
    s.learnt[i] = s.learnt[i] + math.ceil(s.learnt[i] / 10)
    s.learnt[i + 1] = now + 60 * window
  end
end
for i = #members, 1, -1 do
  if now - members[i][CONTACT] >= 22 * window then
    redis.call('HDEL', key, 'r:' .. members[i][ID])
    if members[i] == mine then mine = nil end
    table.remove(members, i)
  end
end
if s.de <= now and day_number > s.dn and day_ends > now then
  local carried = 0
  for i = 1, #members do carried = carried + members[i][LEASE_R] + members[i][DAILY] end
  if s.dn == 0 then carried = carried + s.du else s.dm = 0 end
  s.dn, s.de, s.du = day_number, day_ends, carried
end
if s.lost == 1 and not (mine and mine[CONTACT] >= s.born and mine[CALL] > 0) then
  s.ur = less(s.ur + (mine and mine[PART_R] or 0), part_r)
  s.ut = less(s.ut + (mine and mine[PART_T] or 0), part_t)
  if day_number == s.dn then s.du = max(s.du, day_seen + s.dm) end
end
if not mine then
  mine = {member, 0, now, 0, 0, 0, 0, now, 0, 0, 0, 0, 1, 0, 0, lr, lt, ld, 0, 0}
  members[#members + 1] = mine
end

-- What the member tells.
local reported = 0
for _ = 1, arg() do
  local age, r, t = arg(), arg(), arg()
  reported = reported + r
  local leaves = (math.floor((now - min(age, now) + window) / bucket) + 1) * bucket
  if leaves > now then
    s.cr, s.ct = s.cr + r, s.ct + t
    local at = #ring / 3
    while at > 0 and ring[at * 3 - 2] > leaves do at = at - 1 end
    if at > 0 and ring[at * 3 - 2] == leaves then
      ring[at * 3 - 1], ring[at * 3] = ring[at * 3 - 1] + r, ring[at * 3] + t
    else
      local from = at * 3 + 1
      for i = #ring, from, -1 do ring[i + 3] = ring[i] end
      ring[from], ring[from + 1], ring[from + 2] = leaves, r, t
    end
  end
end
for _ = 1, arg() do
  local where, r, t, d = arg(), arg(), arg(), arg()
  for i = 1, #ring, 3 do
    if ring[i] == where then
      r = min(r, ring[i + 1])
      local is = max(ring[i + 2] + t, 0)
      s.cr, s.ct = s.cr - r, s.ct - ring[i + 2] + is
      ring[i + 1], ring[i + 2] = ring[i + 1] - r, is
      break
    end
  end
  s.du = less(s.du, d)
end
if mine[PROBES] == 1 and held_r == 0 and held_t == 0 then
  mine[PROBES] = 0
  if reported == 0 then
    for i = 1, 4 do if s.doors[i] ~= 0 then s.doors[i][2] = min(s.doors[i][2], now) end end
  end
end
s.du = less(s.du + reported + held_r + day_spent + day_held, mine[LEASE_R] + mine[DAILY])
if held_r > mine[LEASE_R] or held_t > mine[LEASE_T] then mine[ENDS] = now + lease end
mine[CALL], mine[CONTACT], mine[PART_R], mine[PART_T] = call, now, part_r, part_t
mine[LEASE_R], mine[LEASE_T], mine[DAILY], mine[WEIGHT] = held_r, held_t, day_held, weight
mine[LIM_R], mine[LIM_T], mine[LIM_D], mine[LEFT] = lr, lt, ld, 0
local sizes = {}
for i = 1, arg() do sizes[i] = arg() end

local reply_part_r, reply_part_t, grant_r, grant_t, daily, wait, held = part_r, part_t, 0, 0, 0, 0, 0
local fr, ft, fd, differs, count, hungry, probe = -1, -1, -1, 0, 0, 0, 0
local function lowest(one, other)
  if one < 0 then return other end
  if other < 0 then return one end
  return min(one, other)
end

local function kept(part, silent)
  silent = less(silent, window)
  local halvings = math.floor(silent / (2 * window))
  if halvings >= 10 then return 0 end
  return math.floor(part / 2 ^ halvings)
end

local function cost(r, t, most_r, most_t)
  r = r / most_r
  t = most_t >= MANY and 0 or t / most_t
  return max(r, t)
end

if leave then
  mine[LEFT], mine[WANT_R], mine[WANT_T], mine[DAILY] = 1, 0, 0, 0
  mine[PART_R], mine[PART_T], mine[LEASE_R], mine[LEASE_T] = 0, 0, 0, 0
  reply_part_r, reply_part_t = 0, 0
else
  for i = 1, 3 do
    local learnt = s.learnt[i * 2 - 1]
    if learnt == 0 then learnt = -1 end
    if i == 1 then fr = learnt elseif i == 2 then ft = learnt else fd = learnt end
  end
  local parts_r, parts_t, lease_r, lease_t = 0, 0, 0, 0
  local slack = 2 * lease
  local low
  local largest = 0
  local waiting = {}
  for i = 1, #members do
    local m = members[i]
    local silent = now - m[CONTACT]
    if m[LEFT] == 0 then
      fr, ft, fd = lowest(fr, m[LIM_R]), lowest(ft, m[LIM_T]), lowest(fd, m[LIM_D])
      if m[LIM_R] ~= lr or m[LIM_T] ~= lt or m[LIM_D] ~= ld then differs = 1 end
      if silent < 3 * window then count = count + 1 end
    end
    if silent < 3 * window then
      parts_r, parts_t = parts_r + m[PART_R], parts_t + m[PART_T]
    else
      parts_r, parts_t = parts_r + kept(m[PART_R], silent), parts_t + kept(m[PART_T], silent)
    end
    if m[ENDS] + window > now then lease_r, lease_t = lease_r + m[LEASE_R], lease_t + m[LEASE_T] end
    if m ~= mine and m[WANT_R] > 0 and now <= m[DUE] + slack then
      waiting[#waiting + 1] = i
      hungry = hungry + 1
      largest = max(largest, m[HEAD])
      if not low or m[SERVED] < low then low = m[SERVED] end
    end
  end
  if s.lost == 1 then
    local silent = less(now, s.us)
    parts_r, parts_t = parts_r + kept(s.ur, silent), parts_t + kept(s.ut, silent)
  end
  local most_r, most_t = most_of(fr), most_of(ft)
  local free_r = less(less(less(most_r, parts_r), lease_r), s.cr)
  local free_t = less(less(less(most_t, parts_t), lease_t), s.ct)
  local left = fd < 0 and MANY or less(fd, s.du)
  if fd >= 0 and s.de <= now then left = 0 end
  free_r = min(free_r, left)
  mine[SERVED] = mine[SERVED] + cost(spent_r, spent_t, most_r, most_t) / weight

  -- The member's share.
  local was_hungry = mine[WANT_R] > 0 and now <= mine[DUE] + slack
  local head = min(sizes[1] or 0, most_t)
  if not was_hungry and low then mine[SERVED] = min(max(mine[SERVED], low), low + 1) end
  mine[WANT_R], mine[WANT_T], mine[HEAD], mine[DUE] = want_r, want_t, head, now + slack
  local share_r, share_t = 0, 0
  local others, wanted_r, wanted_t, all, me = {}, want_r, want_t, 0, 0
  local limits_t = most_t < MANY
  local function enough(r, t)
    local part = wanted_r == 0 and 1 or r / wanted_r
    if limits_t then part = min(part, wanted_t == 0 and 1 or t / wanted_t) end
    return min(part, 1) * all
  end
  local function pour(by)
    others, wanted_r, wanted_t = {}, mine[WANT_R], mine[WANT_T]
    all = cost(wanted_r, wanted_t, most_r, most_t)
    for i = 1, #waiting do
      local m = members[waiting[i]]
      if not by or m[DUE] <= by then
        local c = cost(m[WANT_R], m[WANT_T], most_r, most_t)
        others[#others + 1] = {m[SERVED], m[WEIGHT], c, cost(1, m[HEAD], most_r, most_t), waiting[i] < me}
        wanted_r, wanted_t, all = wanted_r + m[WANT_R], wanted_t + m[WANT_T], all + c
      end
    end
  end
  local function before()
    local sum = 0
    for i = 1, #others do
      local o = others[i]
      local below = mine[SERVED] - o[1]
      if below > 1e-9 or (below >= -1e-9 and o[5]) then sum = sum + min(max(o[2] * below, o[4]), o[3]) end
    end
    return sum
  end
  if want_r > 0 then
    largest = max(largest, head)
    for i = 1, #members do if members[i] == mine then me = i break end end
    pour(now + math.floor(lease / 2))
    local most = min(want_r, free_r)
    local sums = {}
    if limits_t then
      local sum = 0
      for i = 1, #sizes do
        sum = sum + min(sizes[i], most_t)
        if i > most or sum > free_t then break end
        sums[i] = sum
      end
      most = min(most, #sums)
    end
    local free = enough(free_r, free_t)
    local function price(n) return cost(n, limits_t and sums[n] or 0, most_r, most_t) end
    local function fits(n)
      local more = price(n)
      local level, needed = mine[SERVED] + more / weight, more
      for i = 1, #others do
        local o = others[i]
        needed = needed + min(max(o[2] * (level - o[1]), 0), o[3])
      end
      return needed <= free + 1e-9
    end
    if most > 0 then
      if fits(1) then
        local from, to = 1, most
        while from < to do
          local middle = from + math.ceil((to - from) / 2)
          if fits(middle) then from = middle else to = middle - 1 end
        end
        share_r = from
      elseif before() + price(1) <= free + 1e-9 then
        share_r = 1
      end
      if share_r > 0 and limits_t then share_t = sums[share_r] end
    end
  end

  local shut
  for i = 1, 4 do
    local door = s.doors[i]
    if door ~= 0 then
      if door[1] <= now then s.doors[i] = 0 else shut = max(door[2], shut or 0) end
    end
  end
  if now < s.opens then
    held, wait = 2, s.opens - now
  elseif shut then
    held = 1
    if shut > now then
      wait = shut - now
    elseif want_r > 0 and free_r > 0 and (not limits_t or head <= free_t) then
      for i = 1, 4 do
        local door = s.doors[i]
        if door ~= 0 then door[2] = min(door[1], now + door[3]) end
      end
      probe, grant_r = 1, 1
      if limits_t then grant_t = head end
    end
  elseif left == 0 then
    held, wait = 3, max(less(s.de, now), 1000)
  else
    local n = max(count, 1)
    local unit = most_r < MANY and 1 or 0
    local target_r = most_r >= MANY and 0 or math.floor(math.floor(most_r / 2) / n)
    local target_t = most_t >= MANY and 0 or math.floor(math.floor(most_t / 2) / n)
    if limits_t and largest > math.floor(most_t / 2) then target_t = 0 end
    target_r, target_t = min(target_r, used_r), min(target_t, used_t)
    local allowance = MANY
    if fd >= 0 then
      local scarce = most_r >= MANY and 0 or 20 * most_r
      allowance = left < scarce and 0 or math.floor(math.floor(left / 20) / n)
      if allowance == 0 then target_r, target_t = 0, 0 end
    end
    local bank_r = most_r >= MANY and MANY or math.floor(most_r / 2)
    local bank_t = most_t >= MANY and MANY or math.floor(most_t / 2)
    local rest_r, rest_t = less(parts_r, part_r), less(parts_t, part_t)
    local moved, tokens = 0, 0
    while moved < share_r and moved < allowance and (most_r < MANY or limits_t) do
      local size = limits_t and min(sizes[moved + 1] or 0, most_t) or 0
      local next_r, next_t = reply_part_r + unit, reply_part_t + size
      if next_r > max(target_r, 1 - unit) or next_t > target_t or rest_r + next_r > bank_r or rest_t + next_t > bank_t then
        break
      end
      reply_part_r, reply_part_t, moved, tokens = next_r, next_t, moved + 1, tokens + size
    end
    grant_r, grant_t = less(share_r, moved), less(share_t, tokens)
    reply_part_r, reply_part_t = min(reply_part_r, target_r), min(reply_part_t, target_t)
    if fd >= 0 then daily = min(less(allowance, day_held), less(left, grant_r)) end
    mine[SERVED] = mine[SERVED] + cost(grant_r, grant_t, most_r, most_t) / weight
    mine[WANT_R], mine[WANT_T] = less(want_r, share_r), less(want_t, share_t)
    if share_r < want_r then
      local r, t = less(free_r, share_r), less(free_t, share_t)
      local next = limits_t and min(sizes[share_r + 1] or 0, most_t) or 0
      pour()
      local needed = before() + cost(1, next, most_r, most_t)
      local function may() return r >= 1 and t >= next and needed <= enough(r, t) + 1e-9 end
      if may() then
        wait = math.floor(math.floor(lease / 2) / 4)
      else
        wait = math.floor(heartbeat / 4)
        for i = 1, #ring, 3 do
          r, t = r + ring[i + 1], t + ring[i + 2]
          if may() then wait = ring[i] - now break end
        end
      end
    end
  end
  wait = min(wait, heartbeat)
  if grant_r > 0 then
    mine[LEASE_R], mine[LEASE_T] = mine[LEASE_R] + grant_r, mine[LEASE_T] + grant_t
    mine[ENDS] = now + lease
  end
  mine[PART_R], mine[PART_T] = max(part_r, reply_part_r), max(part_t, reply_part_t)
  if probe == 1 then mine[PROBES] = 1 end
  mine[DAILY] = mine[DAILY] + daily
  mine[DUE] = now + wait
  s.du = s.du + grant_r + daily
end

local reply = {call, s.epoch, s.seq, now, grant_r, grant_t, reply_part_r, reply_part_t, daily, wait, held,
  fr, ft, fd, differs, count, hungry, s.dn, s.du, probe, s.cs}
local behind = epoch == s.epoch and close_seq < s.cs
if behind or epoch ~= s.epoch then
  local closed = false
  for i = 1, 4 do
    local door = s.doors[i]
    if door ~= 0 and door[1] > now then
      closed = true
      local lasts = door[1] - now
      if lasts >= MANY / 2 then lasts = -1 end
      for _, n in ipairs({i - 1, lasts, door[4], door[5], door[6], s.ramp, door[3] >= MANY and 0 or max(less(door[2], now), 1)}) do
        reply[#reply + 1] = n
      end
    end
  end
  if behind and not closed then
    for _, n in ipairs({4, -1, -1, 0, 0, 0, 0}) do reply[#reply + 1] = n end
  end
end
for i = 1, #reply do reply[i] = text(reply[i]) end
reply = table.concat(reply, ' ')
save()
redis.call('HSET', key, 'r:' .. member, reply)
if ARGV[5] ~= '' and s.seq == 1 then redis.call('HSET', key, 'key', ARGV[5]) end
local keep = window / 1000 * 1440
if s.de > now then keep = max(keep, (s.de - now) / 1000 + 3600000) end
redis.call('PEXPIRE', key, text(keep))
return reply
