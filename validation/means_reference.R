# Data -> reference_means.json: marginal means, slopes and joint tests by emmeans.
#
# Usage: OPENBLAS_NUM_THREADS=1 Rscript means_reference.R
# Also writes data/cbpp.csv.gz (lme4) and data/Routes.csv.gz, made here: a factor nested in another.

suppressPackageStartupMessages({
  library(lmerTest)
  library(emmeans)
  library(jsonlite)
})
options(contrasts = c("contr.treatment", "contr.treatment"))
emm_options(lmerTest.limit = 1e6, pbkrtest.limit = 2000, msg.interaction = FALSE,
            msg.nesting = FALSE)

args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))
shipped <- file.path(here, "..", "lmmsparse", "data")

set.seed(3)
routes <- expand.grid(cow = 1:6, route = c("im", "iv", "oral", "skin", "nose"))
routes$drug <- c(im = "a", iv = "a", oral = "b", skin = "b", nose = "b")[as.character(routes$route)]
routes <- routes[rep(seq_len(nrow(routes)), 1 + (routes$cow %% 2)), ]
routes$y <- round(5 + as.integer(routes$route) + 0.7 * (routes$drug == "b") +
                    rnorm(6)[routes$cow] + rnorm(nrow(routes)), 3)
export <- function(data, name) {
  con <- gzfile(file.path(here, "data", paste0(name, ".csv.gz")), "wb", compression = 9)
  on.exit(close(con))
  write.csv(data, con, row.names = FALSE, quote = FALSE)
}
export(routes, "Routes")
export(lme4::cbpp, "cbpp")

read <- function(name, factors) {
  path <- c(file.path(shipped, paste0(name, c(".csv.gz", ".csv"))),
            file.path(here, "data", paste0(name, ".csv.gz")))
  data <- read.csv(path[file.exists(path)][1], stringsAsFactors = FALSE, check.names = FALSE)
  for (column in factors) data[[column]] <- factor(data[[column]])
  data
}

ask <- function(specs, kind = "emmeans", ...) c(list(kind = kind, specs = as.list(specs)), list(...))
model <- function(name, data, formula, factors, questions, python = formula, weights = NULL,
                  family = NULL)
  list(name = name, data = data, formula = formula, python = python, factors = as.list(factors),
       weights = weights, family = family, questions = questions)

models <- list(
  model("sleepstudy", "sleepstudy", "Reaction ~ Days + (1 | Subject)", c("Days", "Subject"), list(
    ask("Days"), ask("Days", ddf = "kenward-roger", level = 0.9),
    ask("Days", contrasts = "pairwise"), ask("Days", contrasts = "pairwise", reverse = TRUE, adjust = "holm"),
    ask("Days", contrasts = "consec", adjust = "sidak", ddf = "kenward-roger"),
    ask("Days", contrasts = "consec", adjust = "fdr", reverse = TRUE))),
  model("machines", "Machines", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)",
        c("Machine", "Worker"), list(
    ask("Machine", ddf = "kenward-roger"), ask("Machine", contrasts = "pairwise", ddf = "kenward-roger"),
    ask("Machine", contrasts = "trt.vs.ctrl", adjust = "sidak"),
    ask("Machine", contrasts = "trt.vs.ctrl", ref = 2, adjust = "bonferroni", reverse = TRUE),
    ask("Machine", contrasts = list(rest = c(1, -0.5, -0.5), ends = c(1, 0, -1)), adjust = "none"))),
  model("cake", "cake", "angle ~ recipe * temperature + (1 | recipe:replicate)",
        c("recipe", "temperature", "replicate"), list(
    ask("recipe", by = "temperature"), ask("recipe", by = "temperature", contrasts = "pairwise"),
    ask("temperature", by = "recipe", contrasts = "consec", adjust = "bonferroni", ddf = "kenward-roger"),
    ask("recipe", by = "temperature", contrasts = "pairwise", adjust = "fdr",
        at = list(temperature = c("185", "215"))),
    ask(character(), kind = "joint_tests"), ask(character(), kind = "joint_tests", by = "recipe"))),
  model("log", "cake", "log(angle) ~ recipe * temp + (1 | recipe:replicate)",
        c("recipe", "replicate"), list(
    ask("recipe", type = "response"), ask("recipe", contrasts = "pairwise", type = "response"),
    ask("recipe", contrasts = "trt.vs.ctrl", adjust = "sidak", type = "response", ddf = "kenward-roger"),
    ask("recipe", kind = "emtrends", var = "temp"),
    ask("recipe", kind = "emtrends", var = "temp", contrasts = "pairwise", ddf = "kenward-roger"),
    ask("temp", by = "recipe", at = list(temp = c(180, 200)), type = "response"),
    ask(character(), kind = "joint_tests"),
    ask("recipe", regrid = "response"), ask("recipe", contrasts = "pairwise", regrid = "response"),
    ask("recipe", kind = "emtrends", var = "temp", regrid = "response"))),
  model("log2", "cake", "log2(angle) ~ recipe + temp + (1 | recipe:replicate)",
        c("recipe", "replicate"), list(
    ask("recipe", type = "response"), ask("recipe", contrasts = "pairwise", type = "response")),
    python = "np.log2(angle) ~ recipe + temp + (1 | recipe:replicate)"),
  model("log1p", "cake", "log1p(angle) ~ recipe + temp + (1 | recipe:replicate)",
        c("recipe", "replicate"), list(
    ask("recipe", type = "response"), ask("recipe", contrasts = "pairwise", type = "response")),
    python = "np.log1p(angle) ~ recipe + temp + (1 | recipe:replicate)"),
  model("log_shifted", "cake", "log(angle + 5) ~ recipe + temp + (1 | recipe:replicate)",
        c("recipe", "replicate"), list(
    ask("recipe", type = "response"), ask("recipe", contrasts = "pairwise", type = "response"))),
  model("sqrt", "cake", "sqrt(angle) ~ recipe * temperature + (1 | recipe:replicate)",
        c("recipe", "temperature", "replicate"), list(
    ask("temperature", type = "response"), ask("recipe", contrasts = "pairwise", type = "response"),
    ask("recipe", regrid = "response"), ask("recipe", contrasts = "pairwise", regrid = "response")),
    python = "np.sqrt(angle) ~ recipe * temperature + (1 | recipe:replicate)"),
  model("proportional", "Oats_unbalanced", "yield ~ Variety * nitro + (1 | Block)",
        c("Variety", "nitro", "Block"), list(
    ask("Variety", weights = "proportional"), ask("nitro", weights = "proportional", contrasts = "pairwise"),
    ask("nitro", weights = "proportional", type = "response"), ask("nitro"),
    ask("Variety", weights = list(nitro = c(4, 3, 2, 1)), contrasts = "pairwise"),
    ask("Variety", weights = "proportional", at = list(nitro = c("0", "0.4")))),
    weights = "w"),
  model("three_way", "ham", "Informed_liking ~ Product * Information * Gender + Age + (1 | Consumer)",
        c("Product", "Information", "Gender", "Consumer"), list(
    ask(c("Product", "Information"), by = "Gender", at = list(Age = 40)),
    ask("Product", by = c("Information", "Gender"), contrasts = "pairwise",
        at = list(Product = c("1", "3"))),
    ask(c("Product", "Information"), at = list(Gender = "1"), contrasts = "pairwise", adjust = "none",
        ddf = "kenward-roger"),
    ask(character(), kind = "emtrends", var = "Age"),
    ask(character(), kind = "joint_tests", by = "Gender"))),
  model("curve", "cake", "angle ~ recipe * temp + I(temp**2) + (1 | recipe:replicate)",
        c("recipe", "replicate"), list(
    ask("recipe", at = list(temp = c(180, 210))), ask("recipe", kind = "joint_tests", by = "recipe"))),
  model("nested", "Routes", "y ~ drug + route + (1 | cow)", c("drug", "route", "cow"), list(
    ask("drug"), ask("drug", contrasts = "pairwise", ddf = "kenward-roger"), ask("route"),
    ask("route", by = "drug", contrasts = "pairwise"), ask("drug", weights = "proportional"))),
  model("binomial", "cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        c("period", "herd"), list(
    ask("period", type = "response"), ask("period"), ask("period", contrasts = "pairwise", type = "response"),
    ask("period", contrasts = "trt.vs.ctrl", type = "response", adjust = "holm"),
    ask(character(), kind = "joint_tests"),
    ask("period", regrid = "response"), ask("period", contrasts = "pairwise", regrid = "response"),
    ask("period", contrasts = "trt.vs.ctrl", adjust = "holm", regrid = "response")),
    family = "binomial"),
  model("averaged", "cake", "I(angle > 32) ~ recipe + temperature + (1 | recipe:replicate)",
        c("recipe", "temperature", "replicate"), list(
    ask("recipe", regrid = "response"), ask("recipe", type = "response"),
    ask("recipe", contrasts = "pairwise", regrid = "response", adjust = "sidak"),
    ask("temperature", contrasts = "consec", regrid = "response", weights = "proportional"),
    ask("recipe", by = "temperature", contrasts = "pairwise", regrid = "response", reverse = TRUE)),
    family = "binomial"),
  model("slopes", "cake", "I(angle > 32) ~ recipe * temp + (1 | recipe:replicate)",
        c("recipe", "replicate"), list(
    ask("recipe", at = list(temp = c(180, 220)), contrasts = "pairwise", regrid = "response"),
    ask("recipe", kind = "emtrends", var = "temp", regrid = "response"),
    ask("recipe", kind = "emtrends", var = "temp", contrasts = "pairwise", regrid = "response")),
    family = "binomial"),
  model("poisson", "cbpp", "incidence ~ period + offset(log(size)) + (1 | herd)",
        c("period", "herd"), list(
    ask("period", type = "response"), ask("period", contrasts = "pairwise", type = "response"),
    ask("period", contrasts = "consec", reverse = TRUE, type = "response", adjust = "sidak"),
    ask("period", contrasts = list(late = c(0.5, 0.5, -0.5, -0.5)), type = "response", adjust = "none")),
    family = "poisson")
)

answer <- function(m, q) {
  common <- list(object = m, lmer.df = if (is.null(q$ddf)) "satterthwaite" else q$ddf)
  if (!is.null(q$at)) common$at <- q$at
  if (q$kind == "joint_tests") {
    table <- do.call(joint_tests, c(common, list(by = q$by, showconf = FALSE)))
    ef <- attr(table, "est.fcns")
    table <- as.data.frame(table)
    return(as.list(table))
  }
  specs <- unlist(q$specs)
  common$specs <- if (length(specs)) specs else ~ 1
  common$by <- q$by
  if (!is.null(q$weights)) common$weights <- if (is.list(q$weights)) unlist(q$weights) else q$weights
  if (!is.null(q$var)) common$var <- q$var
  if (!is.null(q$regrid)) common$regrid <- q$regrid
  grid <- do.call(if (q$kind == "emtrends") emtrends else emmeans, common)
  level <- if (is.null(q$level)) 0.95 else q$level
  if (!is.null(q$contrasts)) {
    method <- q$contrasts
    extra <- list()
    if (identical(method, "pairwise") && isTRUE(q$reverse)) method <- "revpairwise"
    else if (isTRUE(q$reverse)) extra$reverse <- TRUE
    if (!is.null(q$ref)) extra$ref <- q$ref
    grid <- do.call(contrast, c(list(grid, method = method), extra))
    table <- summary(grid, infer = TRUE, level = level,
                     type = if (is.null(q$type)) "link" else q$type,
                     adjust = if (is.null(q$adjust)) "tukey" else q$adjust)
  } else {
    table <- summary(grid, infer = c(TRUE, FALSE), level = level,
                     type = if (is.null(q$type)) "link" else q$type)
  }
  as.list(as.data.frame(table))
}

results <- lapply(models, function(entry) {
  message(entry$name)
  data <- read(entry$data, entry$factors)
  if (!is.null(entry$weights)) data$w <- 1 + (seq_len(nrow(data)) %% 3) / 2
  assign("data", data, envir = globalenv())
  formula <- as.formula(gsub("**", "^", entry$formula, fixed = TRUE))
  if (is.null(entry$family)) {
    control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5),
                           calc.derivs = FALSE)
    m <- if (is.null(entry$weights)) eval(bquote(lmer(.(formula), data, control = control)))
         else eval(bquote(lmer(.(formula), data, weights = w, control = control)))
  } else {
    control <- glmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5),
                            tolPwrss = 1e-13)
    m <- eval(bquote(glmer(.(formula), data, family = .(entry$family), control = control)))
  }
  out <- entry
  out$levels <- lapply(setNames(entry$factors, entry$factors), function(f) levels(data[[f]]))
  out$beta <- unname(fixef(m))
  out$vcov <- unname(as.matrix(vcov(m)))
  out$questions <- lapply(entry$questions, function(q) c(q, list(answer = answer(m, q))))
  out
})
con <- file(file.path(here, "reference_means.json"), "w")
write(toJSON(results, digits = I(12), auto_unbox = TRUE, na = "null", null = "null"), con)
close(con)
