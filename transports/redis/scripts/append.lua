-- Store.put of what most puts consist of: messages that are ready at once and for ever, for queues
-- without a limit, and acks that go along. It has no plan, since unpacking one takes the server as
-- long as the rest. ARGV is a row of lists, each with its length before it: the names in `versions`,
-- followed by their versions; groups of tokens, each with queue, tag and a list of ids; and up to the
-- end runs of messages, each with queue, priority and a list of id and content by turns.
-- Answer: {stale, already, stale tokens}: which versions are wrong (then nothing was done), which
-- messages were there already, and which tokens were not held, all counted from 0.

local stale, already = {}, {}
local position = 1

-- The list that is next in ARGV.
local function list()
  local found, first = {}, position + 1
  position = first + ARGV[position]
  for place = first, position - 1 do
    found[#found + 1] = ARGV[place]
  end
  return found
end

local function word()
  position = position + 1
  return ARGV[position - 1]
end

for index, version in ipairs(many_values('HMGET', P .. 'versions', list())) do
  if word() ~= (version or '0') then
    stale[#stale + 1] = index - 1
  end
end
if #stale > 0 then
  return {stale, already, {}}
end

-- Read: what is held, what is new, and the type of each key that will be written.

local known = {}  -- queue -> id -> whether it is there; what is settled here is not

local function known_of(queue)
  known[queue] = known[queue] or {}
  return known[queue]
end

local groups, leaving = {}, 0
for index = 1, tonumber(word()) do
  groups[index] = {word(), word(), list()}
end
find(groups)
check_books(groups, #groups)
for _, group in ipairs(groups) do
  local there = known_of(group[1])
  for _, id in ipairs(group[6]) do
    there[id] = false
  end
  leaving = leaving + #group[6]
end

local runs, growth, count = {}, 0, 0
while position <= #ARGV do
  local queue, priority, pairs_of = word(), word(), list()
  local there, ids, contents = known_of(queue), {}, {}
  for place = 1, #pairs_of, 2 do
    ids[#ids + 1] = pairs_of[place]
  end
  for index, body in ipairs(many_values('HMGET', key_of('m', queue), ids)) do
    local id = ids[index]
    if there[id] or body and there[id] == nil then
      already[#already + 1] = count + index - 1
    else
      there[id] = true
      contents[#contents + 1] = id
      contents[#contents + 1] = pairs_of[2 * index]
    end
  end
  count = count + #ids
  local ready = key_of('l' .. priority, queue)
  local filled = call('LLEN', ready) > 0
  if not filled then
    call('SCARD', key_of('s', queue))
  end
  bells(queue)
  growth = growth + #contents / 2
  runs[#runs + 1] = {queue, priority, ready, filled, contents}
end

-- Write. What grows comes first, so that a full server refuses it before anything has happened;
-- but what takes at least as much away must pass, or a full server could not be drained.

local seq = 0
if growth > leaving then
  seq = call('INCRBY', P .. 'seq', growth) - growth
  settle(groups, #groups)
else
  call('GET', P .. 'seq')
  settle(groups, #groups)
  if growth > 0 then
    seq = call('INCRBY', P .. 'seq', growth) - growth
  end
end

for _, run in ipairs(runs) do
  local queue, priority, ready, filled, contents = unpack(run)
  local places, format = {}, string.format
  for index = 1, #contents, 2 do
    seq = seq + 1
    places[#places + 1] = format('%.0f:%s', seq, contents[index])
  end
  if #places > 0 then
    many('HSET', key_of('m', queue), contents)
    many('RPUSH', ready, places)
    if not filled then
      fill(queue, priority)
    end
    ring(queue, #places)
  end
end
return {stale, already, stale_of(groups, #groups)}
