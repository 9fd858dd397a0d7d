# generalized_data -> generalized_tests.json: tests, marginal means and profile intervals by R.
#
# Usage: OPENBLAS_NUM_THREADS=1 Rscript generalized_tests.R [regular expression of names]
# Those that do not match stay as they are.
#
# glmmTMB fits; car tests terms by Wald's chi-square (type II as it is, type III with sum contrasts);
# deletions are likelihood-ratio tests of glmmTMB fits; emmeans gives means and differences on the
# scales of the link and of the response; intervals are roots of the profile likelihood.

suppressPackageStartupMessages({
  library(glmmTMB)
  library(emmeans)
  library(car)
  library(jsonlite)
})
invisible(Sys.setlocale("LC_COLLATE", "C"))
args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))
registry <- fromJSON(file.path(here, "generalized.json"), simplifyVector = FALSE)
names(registry$models) <- vapply(registry$models, function(m) m$name, "")

table_of <- function(name) {
  data <- read.csv(file.path(here, "generalized_data", paste0(name, ".csv.gz")),
                   stringsAsFactors = TRUE)
  declared <- registry$levels[[name]]
  for (column in names(declared))
    data[[column]] <- factor(data[[column]], levels = unlist(declared[[column]]))
  data
}

digits <- function(x) signif(x, 7)
control <- glmmTMBControl(optCtrl = list(rel.tol = 1e-13, iter.max = 1000, eval.max = 1000))

fit_of <- function(formula, data, family, offset = NULL, contrasts = NULL) {
  call <- list(formula = formula, data = data, family = family, control = control)
  if (!is.null(offset)) call$offset <- offset
  if (!is.null(contrasts)) call$contrasts <- contrasts
  do.call(glmmTMB, call)
}

as_rows <- function(table, keep) {
  frame <- as.data.frame(table)
  lapply(seq_len(nrow(frame)), function(i) as.list(vapply(frame[i, keep, drop = FALSE],
                                                          function(x) digits(as.numeric(x)), 0)))
}

means <- function(fit, specs) {
  link <- emmeans(fit, specs, df = Inf)  # glmmTMB would have t with residual df
  response <- emmeans(fit, specs, type = "response", df = Inf)
  value <- names(as.data.frame(response))[length(specs) + 1]
  differences <- as.data.frame(pairs(link, adjust = "tukey"))
  plain <- as.data.frame(pairs(link, adjust = "none"))
  ratios <- as.data.frame(pairs(response, adjust = "none"))
  frame <- as.data.frame(link)
  list(specs = I(specs), levels = lapply(frame[specs], function(x) I(as.character(x))),
       emmean = I(digits(frame$emmean)), SE = I(digits(frame$SE)),
       lower = I(digits(confint(link)[["asymp.LCL"]])),
       response = I(digits(as.data.frame(response)[[value]])),
       response_SE = I(digits(as.data.frame(response)$SE)),
       response_upper = I(digits(confint(response)[["asymp.UCL"]])),
       contrast = I(as.character(differences$contrast)), estimate = I(digits(differences$estimate)),
       estimate_SE = I(digits(differences$SE)), p_tukey = I(digits(differences$p.value)),
       p_none = I(digits(plain$p.value)), ratio = I(digits(ratios[[2]])),
       ratio_SE = I(digits(ratios$SE)))
}

chisquares <- function(table) {
  frame <- as.data.frame(table)
  list(term = I(rownames(frame)), chisq = I(digits(frame$Chisq)), df = I(frame$Df),
       p = I(digits(frame[["Pr(>Chisq)"]])))
}

deletions <- function(fit) {
  frame <- as.data.frame(drop1(fit, test = "Chisq"))
  list(term = I(rownames(frame)[-1]), df = I(frame$Df[-1]), lrt = I(digits(frame$LRT[-1])),
       p = I(digits(frame[["Pr(>Chi)"]][-1])), aic = I(digits(frame$AIC)))
}

profiled <- function(fit) {
  f <- fit$obj
  x <- fit$fit$par
  low <- f$fn(x)
  cut <- qchisq(0.95, 1) / 2
  se <- sqrt(diag(solve(optimHess(x, f$fn, f$gr))))
  bound <- function(i, side) {
    start <- x
    g <- function(value) {
      inner <- function(z) f$fn(append(z, value, i - 1))
      gradient <- function(z) f$gr(append(z, value, i - 1))[-i]
      best <- nlminb(start[-i], inner, gradient, control = list(rel.tol = 1e-12))
      best$objective - low - cut
    }
    uniroot(g, x[i] + side * se[i] * c(0.5, 4), tol = 1e-7)$root
  }
  out <- t(vapply(seq_along(x), function(i) c(bound(i, -1), bound(i, 1)), numeric(2)))
  is_sd <- names(x) == "theta"
  list(lower = I(digits(ifelse(is_sd, exp(out[, 1]), out[, 1]))),
       upper = I(digits(ifelse(is_sd, exp(out[, 2]), out[, 2]))),
       names = I(ifelse(is_sd, "sd", names(fixef(fit)$cond)[seq_along(x)])))
}

models <- list(
  list(name = "cbpp", family = binomial(), specs = "period", profile = TRUE),
  list(name = "bacteria", family = binomial(), specs = "trt"),
  list(name = "epil", family = poisson(), specs = "trt", profile = TRUE),
  list(name = "contraception", family = binomial(), specs = c("urban", "livch")),
  list(name = "owls", family = poisson()),
  list(name = "salamanders_nb", family = nbinom2(), specs = "mined"),
  list(name = "cake_gamma", family = Gamma("log"), specs = "recipe"),
  list(name = "bacteria_probit", family = binomial("probit"), specs = "trt"))

# Covariates at their mean, also those with two values.
emm_options(cov.keep = character(0))

user <- commandArgs(trailingOnly = TRUE)
stored <- file.path(here, "generalized_tests.json")
out <- if (length(user) && file.exists(stored)) read_json(stored) else list()
for (m in models) if (!length(user) || grepl(user[1], m$name)) {
  entry <- registry$models[[m$name]]
  data <- table_of(entry$data)
  formula <- as.formula(entry$formula)
  offset <- if (!is.null(entry$offset)) eval(str2lang(entry$offset), data)
  fit <- fit_of(formula, data, m$family, offset)
  factors <- Filter(function(v) is.factor(data[[v]]), all.vars(lme4::nobars(formula)[[3]]))
  sums <- lapply(setNames(factors, factors), function(v) "contr.sum")
  third <- fit_of(formula, data, m$family, offset, if (length(sums)) sums)
  found <- list(name = m$name, minus2loglik = digits(-2 * as.numeric(logLik(fit))),
                type2 = chisquares(Anova(fit, type = 2)), type3 = chisquares(Anova(third, type = 3)),
                drop1 = deletions(fit),
                means = if (!is.null(m$specs)) means(fit, m$specs),
                profile = if (isTRUE(m$profile)) profiled(fit))
  out[[m$name]] <- found
  cat(m$name, "\n")
  write(toJSON(out, auto_unbox = TRUE, digits = NA, null = "null", na = "null"),
        stored)
}
