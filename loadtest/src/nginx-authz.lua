-- What nginx does with a request here: ask the authorization service, ask upstream, let out what the service prescribed.
-- A prescription is a tree of the JSON keys that may leave of each type; see `prescription.rs`.
local json = require "cjson.safe"
local gate = {}

local methods = {
    GET = ngx.HTTP_GET, HEAD = ngx.HTTP_HEAD, POST = ngx.HTTP_POST,
    PUT = ngx.HTTP_PUT, PATCH = ngx.HTTP_PATCH, DELETE = ngx.HTTP_DELETE,
}
local passed = { "content-type", "etag", "last-modified", "location", "content-location", "retry-after" }
local subject = { "subject", "patient", "beneficiary" }
local subsetted = { system = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", code = "SUBSETTED" }
-- Prescriptions by their names; each worker has its own.
local known = {}

local function prescription(name)
    if not name then return nil end
    if not known[name] then
        local answer = ngx.location.capture("/.prescription/" .. name)
        known[name] = answer.status == 200 and json.decode(answer.body) or nil
    end
    return known[name]
end

local function type_of(reference)
    return type(reference) == "string" and reference:match("([A-Za-z]+)/[^/]+$") or nil
end

-- Takes names and numbers out of references to those whose names and numbers are withheld.
local function hide(node, rule)
    local kind = type_of(node.reference) or node.type
    if kind then
        if rule.names[kind] then node.display = nil end
        if rule.numbers[kind] then node.identifier = nil end
    end
    for _, child in pairs(node) do
        if type(child) == "table" then hide(child, rule) end
    end
end

-- Keeps what the tree has. True if anything was taken out.
local function trim(node, tree)
    if tree == true or type(node) ~= "table" then return false end
    local cut = false
    if node[1] ~= nil then
        for at = #node, 1, -1 do
            local child = node[at]
            cut = trim(child, tree) or cut
            if type(child) == "table" and next(child) == nil then table.remove(node, at) end
        end
        return cut
    end
    for key, child in pairs(node) do
        local below = tree[key:byte(1) == 95 and key:sub(2) or key]
        if not below then
            node[key], cut = nil, true
        elseif below ~= true and below["@urls"] then
            for at = #child, 1, -1 do
                if not below["@urls"][child[at].url] then
                    table.remove(child, at)
                    cut = true
                end
            end
            if #child == 0 then node[key] = nil end
        elseif below ~= true then
            cut = trim(child, below) or cut
            if type(child) == "table" and next(child) == nil then node[key] = nil end
        end
    end
    return cut
end

local function is_own(record, own)
    if record.resourceType == "Patient" then return record.id == own end
    for _, name in ipairs(subject) do
        local whose = record[name]
        if type(whose) == "table" and whose.reference == "Patient/" .. own then return true end
    end
    return false
end

-- The record as it may leave; nothing if it may not.
local function released(record, rule, own)
    local how = type(record) == "table" and rule.types[record.resourceType]
    if not how or (how.own and not (own and is_own(record, own))) then return nil end
    for _, label in ipairs(record.meta and record.meta.security or {}) do
        if how.withheld[label.code] then return nil end
    end
    local kind = record.resourceType
    record.resourceType = nil
    local cut = trim(record, how.keep)
    if rule.hides then hide(record, rule) end
    record.resourceType = kind
    if cut then
        record.meta = record.meta or {}
        record.meta.tag = record.meta.tag or {}
        table.insert(record.meta.tag, subsetted)
    end
    return record
end

local function outside(url, rule)
    if type(url) == "string" and url:sub(1, #rule.upstream) == rule.upstream then
        return rule.public .. url:sub(#rule.upstream + 1)
    end
    return url
end

local function bundle(found, rule, own)
    local entries, lost = {}, false
    for _, entry in ipairs(found.entry or {}) do
        local record = released(entry.resource, rule, own)
        if record then
            table.insert(entries, { fullUrl = outside(entry.fullUrl, rule), resource = record, search = entry.search })
        else
            lost = true
        end
    end
    for _, link in ipairs(found.link or {}) do link.url = outside(link.url, rule) end
    return {
        resourceType = "Bundle", id = found.id, type = found.type, link = found.link,
        total = not lost and found.total or nil,
        entry = #entries > 0 and entries or nil,
    }
end

local function set_of(list)
    local set = {}
    for _, name in ipairs(list) do set[name] = true end
    return set
end

-- Made ready once: sets instead of lists.
local function rule_of(name)
    local rule = prescription(name)
    if rule and not rule.names then
        rule.names, rule.numbers = set_of(rule.hideDisplay), set_of(rule.hideIdentifier)
        rule.hides = next(rule.names) ~= nil or next(rule.numbers) ~= nil
        for _, how in pairs(rule.types) do how.withheld = set_of(how.labels) end
    end
    return rule
end

-- Names of headers as they are written do not matter (RFC 9110 section 5.1); a subrequest's do.
local function headers(answer)
    local found = {}
    for name, value in pairs(answer.header) do found[name:lower()] = value end
    return found
end

local function end_with(status)
    ngx.status = status
    ngx.header["Content-Length"] = 0
    return ngx.exit(ngx.HTTP_OK)
end

-- What should not happen goes to the error log, without anything of the records.
local function fail(why)
    ngx.log(ngx.ERR, why)
    return end_with(502)
end

function gate.serve()
    local method = methods[ngx.req.get_method()]
    if not method then return end_with(405) end
    local how = { method = method }
    if method ~= ngx.HTTP_GET and method ~= ngx.HTTP_HEAD then
        ngx.req.read_body()
        how.body = ngx.req.get_body_data()
    end
    local leave = ngx.location.capture("/.authorize", how)
    if leave.status ~= 200 then return end_with(leave.status) end
    local said = headers(leave)
    local rule = rule_of(said["x-prescription"])
    if not rule then return fail("no prescription") end
    local answer = ngx.location.capture("/.emr", how)
    if answer.truncated then return fail("upstream did not finish") end
    local given = headers(answer)
    for _, name in ipairs(passed) do ngx.header[name] = outside(given[name], rule) end
    if answer.body == "" or answer.status >= 400 then return end_with(answer.status) end
    local found = json.decode(answer.body)
    if type(found) ~= "table" then return fail("upstream answered " .. answer.status .. " with no JSON") end
    local own = said["x-own"]
    local out
    if found.resourceType == "Bundle" then out = bundle(found, rule, own) else out = released(found, rule, own) end
    if not out then return end_with(404) end
    local text = json.encode(out)
    ngx.status = answer.status
    ngx.header["Content-Length"] = #text
    ngx.print(text)
end

return gate
