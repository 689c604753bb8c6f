-- KEYS: the state. ARGV: channel, now or '', run or '', digest, name, then the numbers of a take.
local member = ARGV[6]
local refused, ids, ring, known = load('r:' .. member)
if refused then return refused end
local run = ARGV[3]
if run == '' then
  local info = redis.call('INFO', 'server')
  local _, ends = string.find(info, 'run_id:', 1, true)
  run = ends and string.sub(info, ends + 1, ends + 40) or 'unknown'
end
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
-- A member has 20 bytes in `ids`, its number, and a row in a page. What every message reads of it comes first.
local CONTACT, PART_R, PART_T, LEASE_R, LEASE_T, ENDS, WANT_R, DUE, LEFT, LIM_R, LIM_T, LIM_D = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
local WANT_T, HEAD, WEIGHT, SERVED, CALL, DAILY, PROBES = 13, 14, 15, 16, 17, 18, 19
local ROW, READ, WIDTH, PAGE, USE = '<ddddddddddddddddddd', '<dddddddddddddddd', 152, 16, '<ddd'
local pack, unpacked = struct.pack, struct.unpack
local pages, names = {}, {}
for page = 1, math.ceil(#ids / 20 / PAGE) do names[page] = 'm' .. page end
if #names > 0 then pages = redis.call('HMGET', key, unpack(names)) end
local function most_of(limit) if limit < 0 then return MANY end return limit end

local function lose()
  s.lost = 1
  s.opens = max(s.opens, s.born + quarantine)
  s.us = s.born + split
  local r, t = 0, 0
  for _, rows in ipairs(pages) do
    for from = 1, #rows, WIDTH do
      local part_r, part_t = unpacked('<dd', rows, from + 8)
      r, t = r + part_r, t + part_t
    end
  end
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

local id = string.rep('0', 20 - #member) .. member
local mine, mine_at, mine_page, mine_from
local function find()
  mine, mine_at = nil, string.find(ids, id, 1, true)
  while mine_at and mine_at % 20 ~= 1 do mine_at = string.find(ids, id, mine_at + 1, true) end
  if not mine_at then return end
  mine_at = (mine_at - 1) / 20
  mine_page, mine_from = math.floor(mine_at / PAGE) + 1, mine_at % PAGE * WIDTH + 1
  mine = {unpacked(ROW, pages[mine_page], mine_from)}
end
find()
if mine and mine[CALL] >= call and known then
  if born then redis.call('HSET', key, 'v', '1', 'state', cmsgpack.pack(s)) end
  return known
end
local changes = {'HSET', key, 'v', '1'}
local function change(field, value) changes[#changes + 1], changes[#changes + 2] = field, value end
s.seq = s.seq + 1

-- What has left the window.
local ring_was, gone = ring, 1
while gone < #ring do
  local leaves, r, t = unpacked(USE, ring, gone)
  if leaves > now then break end
  s.cr, s.ct, gone = less(s.cr, r), less(s.ct, t), gone + 24
end
if gone > 1 then ring = string.sub(ring, gone) end
for i = 1, 5, 2 do
  if s.learnt[i] > 0 and s.learnt[i + 1] <= now then
    s.learnt[i] = s.learnt[i] + math.ceil(s.learnt[i] / 10)
    s.learnt[i + 1] = now + 60 * window
  end
end
if s.sweep <= now then
  -- Somebody may have been silent for so long that nothing is left of it.
  local kept_ids, kept_rows = {}, {}
  for i = 0, #ids / 20 - 1 do
    local one, from = string.sub(ids, i * 20 + 1, i * 20 + 20), i % PAGE * WIDTH + 1
    local row = string.sub(pages[math.floor(i / PAGE) + 1], from, from + WIDTH - 1)
    if now - unpacked('<d', row) >= 22 * window then
      redis.call('HDEL', key, 'r:' .. string.match(one, '^0*(.+)$'))
    else
      kept_ids[#kept_ids + 1], kept_rows[#kept_rows + 1] = one, row
    end
  end
  if #kept_ids * 20 < #ids then
    ids = table.concat(kept_ids)
    change('ids', ids)
    for page = math.ceil(#kept_ids / PAGE) + 1, #pages do redis.call('HDEL', key, 'm' .. page) end
    pages = {}
    for page = 1, math.ceil(#kept_ids / PAGE) do
      pages[page] = table.concat(kept_rows, '', (page - 1) * PAGE + 1, min(page * PAGE, #kept_rows))
      change('m' .. page, pages[page])
    end
    find()
  end
end
if s.de <= now and day_number > s.dn and day_ends > now then
  local carried = 0
  for _, rows in ipairs(pages) do
    for from = 1, #rows, WIDTH do
      carried = carried + unpacked('<d', rows, from + 8 * (LEASE_R - 1)) + unpacked('<d', rows, from + 8 * (DAILY - 1))
    end
  end
  if s.dn == 0 then carried = carried + s.du else s.dm = 0 end
  s.dn, s.de, s.du = day_number, day_ends, carried
end
if s.lost == 1 and not (mine and mine[CONTACT] >= s.born and mine[CALL] > 0) then
  s.ur = less(s.ur + (mine and mine[PART_R] or 0), part_r)
  s.ut = less(s.ut + (mine and mine[PART_T] or 0), part_t)
  if day_number == s.dn then s.du = max(s.du, day_seen + s.dm) end
end
if not mine then
  mine, mine_at = {now, 0, 0, 0, 0, now, 0, 0, 0, lr, lt, ld, 0, 0, 1, 0, 0, 0, 0}, #ids / 20
  mine_page, mine_from = math.floor(mine_at / PAGE) + 1, mine_at % PAGE * WIDTH + 1
  ids = ids .. id
  change('ids', ids)
end

-- What the member tells.
local reported = 0
for _ = 1, arg() do
  local age, r, t = arg(), arg(), arg()
  reported = reported + r
  local leaves = (math.floor((now - min(age, now) + window) / bucket) + 1) * bucket
  if leaves > now then
    s.cr, s.ct = s.cr + r, s.ct + t
    local from = #ring + 1
    while from > 1 and unpacked('<d', ring, from - 24) > leaves do from = from - 24 end
    if from > 1 and unpacked('<d', ring, from - 24) == leaves then
      local _, was_r, was_t = unpacked(USE, ring, from - 24)
      ring = string.sub(ring, 1, from - 25) .. pack(USE, leaves, was_r + r, was_t + t) .. string.sub(ring, from)
    else
      ring = string.sub(ring, 1, from - 1) .. pack(USE, leaves, r, t) .. string.sub(ring, from)
    end
  end
end
for _ = 1, arg() do
  local where, r, t, d = arg(), arg(), arg(), arg()
  local from = where > 0 and #ring - 23 or 0
  while from > 0 and unpacked('<d', ring, from) > where do from = from - 24 end
  if from > 0 and unpacked('<d', ring, from) == where then
    local _, was_r, was_t = unpacked(USE, ring, from)
    r = min(r, was_r)
    local is = max(was_t + t, 0)
    s.cr, s.ct = s.cr - r, s.ct - was_t + is
    ring = string.sub(ring, 1, from - 1) .. pack(USE, where, was_r - r, is) .. string.sub(ring, from + 24)
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
  local function learnt(i) if s.learnt[i] == 0 then return -1 end return s.learnt[i] end
  fr, ft, fd = lowest(learnt(1), lr), lowest(learnt(3), lt), lowest(learnt(5), ld)
  local parts_r, parts_t, lease_r, lease_t = part_r, part_t, 0, 0
  if mine[ENDS] + window > now then lease_r, lease_t = held_r, held_t end
  count = 1
  local slack = 2 * lease
  local low
  local largest, oldest = 0, now
  -- Those that wait, in their order: what each was served, its weight, want, head and turn; `first` of them come before this one.
  local serves, weights, wants_r, wants_t, heads, dues, first = {}, {}, {}, {}, {}, {}, 0
  local i = -1
  for page = 1, #pages do
    local rows = pages[page]
    for from = 1, #rows, WIDTH do
      i = i + 1
      if i ~= mine_at then
        local contact, p_r, p_t, l_r, l_t, ends, w_r, due, gone, m_r, m_t, m_d, w_t, head, heavy, served = unpacked(READ, rows, from)
        if contact < oldest then oldest = contact end
        local silent = now - contact
        if gone == 0 then
          if m_r ~= lr or m_t ~= lt or m_d ~= ld then
            differs = 1
            fr, ft, fd = lowest(fr, m_r), lowest(ft, m_t), lowest(fd, m_d)
          end
          if silent < 3 * window then count = count + 1 end
        end
        if silent < 3 * window then
          parts_r, parts_t = parts_r + p_r, parts_t + p_t
        else
          parts_r, parts_t = parts_r + kept(p_r, silent), parts_t + kept(p_t, silent)
        end
        if ends + window > now then lease_r, lease_t = lease_r + l_r, lease_t + l_t end
        if w_r > 0 and now <= due + slack then
          hungry = hungry + 1
          serves[hungry], weights[hungry], dues[hungry] = served, heavy, due
          wants_r[hungry], wants_t[hungry], heads[hungry] = w_r, w_t, head
          if i < mine_at then first = hungry end
          largest = max(largest, head)
          if not low or served < low then low = served end
        end
      end
    end
  end
  s.sweep = oldest + 22 * window
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
  local limits_t = most_t < MANY
  -- What is wanted by those whose turn comes until `by`, together and of each as a cost.
  local by, wanted_r, wanted_t, all
  local costs, head_costs = {}, {}
  local function enough(r, t)
    local part = wanted_r == 0 and 1 or r / wanted_r
    if limits_t then part = min(part, wanted_t == 0 and 1 or t / wanted_t) end
    return min(part, 1) * all
  end
  local function pour(till)
    by, wanted_r, wanted_t = till, mine[WANT_R], mine[WANT_T]
    all = cost(wanted_r, wanted_t, most_r, most_t)
    for i = 1, hungry do
      if dues[i] <= by then
        wanted_r, wanted_t, all = wanted_r + wants_r[i], wanted_t + wants_t[i], all + costs[i]
      end
    end
  end
  local function before()
    local sum, level = 0, mine[SERVED]
    for i = 1, hungry do
      if dues[i] <= by then
        local below = level - serves[i]
        if below > 1e-9 or (below >= -1e-9 and i <= first) then
          local c, cost = weights[i] * below, costs[i]
          if head_costs[i] > c then c = head_costs[i] end
          if cost < c then c = cost end
          sum = sum + c
        end
      end
    end
    return sum
  end
  if want_r > 0 then
    largest = max(largest, head)
    for i = 1, hungry do
      local c, h = wants_r[i] / most_r, 1 / most_r
      if limits_t then c, h = max(c, wants_t[i] / most_t), max(h, heads[i] / most_t) end
      costs[i], head_costs[i] = c, h
    end
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
      for i = 1, hungry do
        local below = level - serves[i]
        if below > 0 and dues[i] <= by then
          local c, cost = weights[i] * below, costs[i]
          if cost < c then c = cost end
          needed = needed + c
          if needed > free + 1e-9 then return false end
        end
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
      pour(math.huge)
      local needed = before() + cost(1, next, most_r, most_t)
      local function may() return r >= 1 and t >= next and needed <= enough(r, t) + 1e-9 end
      if may() then
        wait = math.floor(math.floor(lease / 2) / 4)
      else
        wait = math.floor(heartbeat / 4)
        for from = 1, #ring, 24 do
          local leaves, more_r, more_t = unpacked(USE, ring, from)
          r, t = r + more_r, t + more_t
          if may() then wait = leaves - now break end
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
reply = string.format(string.rep('%d ', #reply - 1) .. '%d', unpack(reply))
local rows = pages[mine_page] or ''
rows = string.sub(rows, 1, mine_from - 1) .. pack(ROW, unpack(mine)) .. string.sub(rows, mine_from + WIDTH)
change('state', cmsgpack.pack(s))
change('m' .. mine_page, rows)
if ring ~= ring_was then change('ring', ring) end
change('r:' .. member, reply)
if ARGV[5] ~= '' and s.seq == 1 then change('key', ARGV[5]) end
redis.call(unpack(changes))
local keep = window / 1000 * 1440
if s.de > now then keep = max(keep, (s.de - now) / 1000 + 3600000) end
redis.call('PEXPIRE', key, text(keep))
return reply
