-- What smsretry/core/line.py does, by the server's clock; each function here has the name that it has there.
-- KEYS[1]: the line of one sender. ARGV: what is asked ("take_turn", "reserve" or "slow_down"), the work and the depth in
-- microseconds, the campaign, the slot, within and retry_after in microseconds, and the time (empty: the server's own).
-- Answers with the wait in microseconds and the slot.

local SLOWEST, CUT_EVERY, RECOVERY, MOST_CAMPAIGNS, SET_BACK = 1 / 16, 2e6, 60e6, 256, 1e6
local NEXT, CAMPAIGN = "next", "="
local KEPT_LONGER, ORIGIN = 60e6, 1767225600

local key, asked, work, depth, campaign, slot = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local within, retry_after = ARGV[6] == "" and math.huge or tonumber(ARGV[6]), tonumber(ARGV[7])
local now = tonumber(ARGV[8])
if not now then
  local time = redis.call("TIME")
  now = (time[1] - ORIGIN) * 1e6 + time[2]
end

local line = {at = now, clock = now, credit = depth, tokens = depth, promised = -depth, pace = 1, cut_at = -math.huge, held_until = 0}
local ends, waiting, gone = {}, 0, {}

local function read()
  local fields = redis.call("HGETALL", key)
  for i = 1, #fields, 2 do
    if fields[i]:sub(1, 1) == CAMPAIGN then
      ends[fields[i]:sub(2)], waiting = tonumber(fields[i + 1]), waiting + 1
    else
      line[fields[i]] = tonumber(fields[i + 1])
    end
  end
end

local function paced_in(passed)
  local recovering = math.min(passed, (1 - line.pace) * RECOVERY)
  local paced = line.pace * recovering + recovering * recovering / (2 * RECOVERY) + (passed - recovering)
  line.pace = passed > recovering and 1 or math.min(1, line.pace + recovering / RECOVERY)
  return paced
end

local function real(paced)
  local pace, whole = line.pace, (1 - line.pace) * RECOVERY
  local recovered = pace * whole + whole * whole / (2 * RECOVERY)
  local passed
  if paced >= recovered then
    passed = whole + (paced - recovered)
  else
    passed = RECOVERY * (math.sqrt(pace * pace + 2 * math.max(0, paced) / RECOVERY) - pace)
  end
  passed = passed + math.max(0, line.held_until - now)
  return math.max(1, pace == 1 and passed % 1 == 0 and passed or math.floor(passed) + 2)
end

local function served(paced)
  while waiting > 0 do
    local first = math.huge
    for _, last in pairs(ends) do
      first = math.min(first, last)
    end
    local needed = (first - line.clock) * waiting
    if paced < needed then
      line.clock = line.clock + paced / waiting
      return 0
    end
    line.clock, paced = first, paced - needed
    for name, last in pairs(ends) do
      if last <= first then
        ends[name], waiting = nil, waiting - 1
        gone[#gone + 1] = CAMPAIGN .. name
      end
    end
  end
  return paced
end

local function advance()
  if now <= line.at then
    line.at = line.at - now > SET_BACK and now or line.at
    return
  end
  local paced = paced_in(math.max(0, now - math.max(line.at, line.held_until)))
  local left = served(paced)
  line.at = now
  line.clock = waiting > 0 and line.clock or math.max(line.clock, now)
  line.credit = waiting > 0 and 0 or math.min(depth, line.credit + left)
  line.tokens = math.min(depth, line.tokens + paced)
  line.promised = math.max(-depth, line.promised - paced)
end

local function shared()
  if ends[campaign] or waiting < MOST_CAMPAIGNS then
    return campaign
  end
  local soonest
  for name, last in pairs(ends) do
    if not soonest or last < ends[soonest] or (last == ends[soonest] and name < soonest) then
      soonest = name
    end
  end
  return soonest
end

local function ahead_of(start)
  local sum, last = 0, line.clock
  for _, stop in pairs(ends) do
    sum, last = sum + math.max(0, math.min(stop, start) - line.clock), math.max(last, stop)
  end
  return sum + math.max(0, start - last)
end

local function place(stop)
  if stop <= line.clock then
    line.credit = line.clock - stop
    return
  end
  local name = shared()
  waiting = waiting + (ends[name] and 0 or 1)
  ends[name], line.credit = stop, 0
end

local function written(number)
  return string.format("%.17g", number)
end

local function keep()
  local fields = {}
  for name, value in pairs(line) do
    if value ~= -math.huge then
      fields[#fields + 1], fields[#fields + 2] = name, written(value)
    end
  end
  local work_left = depth - math.min(0, line.tokens) + math.max(0, line.promised)
  for name, last in pairs(ends) do
    fields[#fields + 1], fields[#fields + 2] = CAMPAIGN .. name, written(last)
    work_left = work_left + last - line.clock
  end
  if #gone > 0 then
    redis.call("HDEL", key, unpack(gone))
  end
  redis.call("HSET", key, unpack(fields))
  redis.call("PEXPIRE", key, math.ceil((real(work_left) + RECOVERY + KEPT_LONGER) / 1000))
end

local function take_turn()
  local need, is_new = math.min(work, depth), true
  local start
  if slot == NEXT then
    start = -math.huge
  else
    start = tonumber(slot)
  end
  if start then
    is_new = false
  else
    start = ends[shared()] or line.clock - line.credit
  end
  local ahead, next_token = ahead_of(start), math.max(line.promised, -line.tokens)
  local wait, answer = 0, ""
  if ahead >= 1 then
    wait, answer = real(ahead + need), written(start)
  elseif not (line.held_until <= now and (slot == NEXT and -line.tokens or next_token) + need <= 0) then
    local lacking = need - line.tokens
    local told = slot == NEXT and lacking <= need / 2 and lacking or next_token + need
    wait, answer = real(told), NEXT
    if wait <= within then
      line.promised = math.max(line.promised, told - need + work)
    end
  else
    line.tokens = line.tokens - work
  end
  if wait > within then
    return wait, slot
  end
  if is_new then
    place(start + work)
  end
  return wait, answer
end

local function reserve()
  local lacking = math.min(work, depth) - line.tokens
  line.tokens = line.tokens - work
  if lacking <= 0 and line.held_until <= now then
    return 0, ""
  end
  return real(lacking), ""
end

local function slow_down()
  line.held_until = math.max(line.held_until, now + retry_after)
  if now - line.cut_at >= CUT_EVERY then
    line.cut_at, line.pace = now, math.max(SLOWEST, line.pace / 2)
    line.tokens, line.credit = math.min(line.tokens, 0), 0
  end
  return 0, ""
end

read()
advance()
local wait, answer = ({take_turn = take_turn, reserve = reserve, slow_down = slow_down})[asked]()
keep()
return {math.min(wait, 1e15), answer}
